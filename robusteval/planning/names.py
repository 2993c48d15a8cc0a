"""Where suites are: the packaged ones by name, any file by path."""

from __future__ import annotations

import re
from pathlib import Path

import robusteval
from robusteval.schema.errors import UnknownNameError, UsageError, unknown_name
from robusteval.schema.source import shorten

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@=-]{0,79}")


def suites_folder() -> Path:
    """The folder of packaged suites: inside an installed wheel, or at the top of a checkout."""
    package = Path(robusteval.__file__).parent
    inside = package / "_suites"
    return inside if inside.is_dir() else package.parent / "suites"


def packaged_suites() -> dict[str, Path]:
    """Packaged suites by name, in alphabetical order."""
    return {path.stem: path for path in sorted(suites_folder().glob("*.yaml"))}


def find_suite(name_or_path: str) -> Path:
    """The file that a user means.

    A text that ends in `.yaml` or `.yml`, or holds a slash, is a path; anything else names a packaged suite.

    Raises:
        UsageError: the text is neither a path nor a possible name.
        UnknownNameError: no packaged suite has that name.
    """
    if is_path(name_or_path):
        return Path(name_or_path)
    if not is_name(name_or_path):
        raise UsageError(
            f"{shorten(name_or_path)} is not a suite name; give a name (robusteval ls suites) or a .yaml file"
        )
    known = packaged_suites()
    if name_or_path not in known:
        beside = Path(f"{name_or_path}.yaml")
        hint = f"; there is ./{beside}, give it as ./{beside}" if beside.is_file() else ""
        raise UnknownNameError(unknown_name("suite", name_or_path, known, listing="robusteval ls suites") + hint)
    return known[name_or_path]


def is_name(text: str) -> bool:
    """Whether a suite can be called `text`."""
    return _NAME.fullmatch(text) is not None


def is_path(text: str) -> bool:
    """Whether a user who wrote `text` means a file."""
    return text.endswith((".yaml", ".yml")) or "/" in text or "\\" in text


def shown_path(path: Path) -> str:
    """A path as messages name it: relative to the working directory where it lies inside."""
    if not path.is_absolute():
        return str(path)
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
