"""The frozen protocols by name. The files stand beside this one and never change; a new version has a new name."""

from __future__ import annotations

from importlib import resources

from ruamel.yaml import YAML

from robusteval.schema.errors import UnknownNameError, unknown_name
from robusteval.schema.protocols import Protocol


def protocol_names() -> tuple[str, ...]:
    """Names of all protocols, in alphabetical order."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def load_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UnknownNameError: there is none.
    """
    names = protocol_names()
    if name not in names:
        raise UnknownNameError(unknown_name("protocol", name, names, listing="robusteval ls protocols"))
    text = resources.files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return Protocol.model_validate(YAML(typ="safe", pure=True).load(text))
