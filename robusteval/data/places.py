"""Where data lies when a suite does not say: one folder for caches, one for datasets that have a name."""

from __future__ import annotations

from pathlib import Path

from robusteval.schema.errors import DataError
from robusteval.store.places import user_cache


def cache_folder(given: str | None = None) -> Path:
    """The folder of everything that can be made again: `given`, or `~/.cache/robusteval`.

    Raises:
        DataError: it starts with the home folder of a user that does not exist.
    """
    return at_home(given) if given else user_cache()


def datasets_folder() -> Path:
    """Where datasets with a name are looked for: a folder, or a link to one, for each."""
    return user_cache() / "datasets"


def dataset_place(name: str, given: str | None) -> Path:
    """The folder of a dataset: `given`, or its own one in `datasets_folder`; links are followed.

    Raises:
        DataError: `given` starts with the home folder of a user that does not exist.
    """
    return (at_home(given) if given else datasets_folder() / name).resolve()


def at_home(text: str) -> Path:
    """A path with `~` written out.

    Raises:
        DataError: there is no such user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise DataError(f"{text}: there is no such user's home folder; write the path out") from None
