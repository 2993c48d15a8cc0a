"""Opening the datasets that a suite names, with paths taken from the suite's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robusteval.planning import targets
from robusteval.schema.cells import LOCATIONS
from robusteval.schema.errors import DataError, UsageError
from robusteval.schema.source import shorten
from robusteval.schema.types import Component

if TYPE_CHECKING:
    from robusteval.data.imageset import Dataset


def anchored(component: Component, suite: Path) -> Component:
    """The component with every relative path among its parameters taken from the suite's folder.

    Raises:
        UsageError: a path starts with the home folder of a user that does not exist.
    """
    registry = targets.registry("dataset")
    if component.name not in registry:
        return component
    fields = targets.params_of(registry.load(component.name)).model_fields
    params = dict(component.params)
    for name, value in component.params.items():
        if name in LOCATIONS and name in fields and isinstance(value, str):
            params[name] = str((suite.parent / _at_home(value)).resolve())
    return component.model_copy(update={"params": params})


def _at_home(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"{shorten(text)}: there is no such user's home folder; write the path out") from None


def opened(component: Component) -> Dataset[Any]:
    """Open a dataset and read what checking needs, so that broken data shows here."""
    dataset = targets.open_dataset(component)
    _ = (dataset.image_shape, [dataset.ids(domain, "test") for domain in dataset.domains])
    if len(dataset.classes) < 2:
        raise DataError(
            f"dataset {component.name!r}: a classifier needs at least 2 classes, this one has "
            f"{', '.join(map(repr, dataset.classes)) or 'none'}; a tree is domain/class/file or split/class/file"
        )
    return dataset
