"""Where bytes live. A store addresses blobs by path only, so that an object store can stand behind it as well.

A backend is never asked to rename across folders, other than to set damage aside, and nothing relies on the order of a
listing. `object_backend` has the one for buckets.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from robusteval.schema.errors import StoreError
from robusteval.store.atomic import create_atomically, write_atomically


class Backend(Protocol):
    """Blobs by relative path."""

    def check(self) -> None:
        """Raise `UnreachableError` if the place cannot be reached or read."""

    def read(self, path: str) -> bytes | None:
        """The blob at `path`, or None."""

    def write(self, path: str, blob: bytes, *, durable: bool = True) -> None:
        """Replace the blob at `path` in one step; what need not outlive a power cut may be written faster."""

    def create(self, path: str, blob: bytes, *, durable: bool = True) -> bool:
        """Write only if nothing is at `path`; of several writers exactly one succeeds."""

    def exists(self, path: str) -> bool:
        """Whether anything is at `path`, readable or not."""

    def displace(self, path: str, target: str) -> None:
        """Move whatever is at `path`, readable or not, to `target`."""

    def delete(self, path: str) -> None:
        """Remove the blob at `path` if it is there."""

    def paths(self, prefix: str) -> Iterator[str]:
        """Paths below the folder `prefix`, in any order."""

    def locate(self, path: str) -> str:
        """Where a person finds the blob, for messages."""


class LocalBackend:
    """Blobs as files below one folder.

    Args:
        root: the folder; created on the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def _file(self, path: str) -> Path:
        parts = PurePosixPath(path).parts
        if not parts or any(part in {"..", "/"} or part.startswith("~") for part in parts):
            raise StoreError(f"{path!r} leaves the store; store paths are relative and have no '..'")
        return self.root.joinpath(*parts)

    def check(self) -> None:
        """A folder that is not there is an empty store."""

    def read(self, path: str) -> bytes | None:
        """The blob at `path`, or None."""
        try:
            return self._file(path).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, path: str, blob: bytes, *, durable: bool = True) -> None:
        """Replace the blob at `path` in one step; what need not outlive a power cut may be written faster."""
        write_atomically(self._file(path), blob, durable=durable)

    def create(self, path: str, blob: bytes, *, durable: bool = True) -> bool:
        """Write only if nothing is at `path`; of several writers exactly one succeeds."""
        return create_atomically(self._file(path), blob, durable=durable)

    def exists(self, path: str) -> bool:
        """Whether anything is at `path`, readable or not."""
        return self._file(path).exists()

    def displace(self, path: str, target: str) -> None:
        """Move whatever is at `path`, a folder too, to `target`."""
        file = self._file(target)
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file(path).replace(file)

    def delete(self, path: str) -> None:
        """Remove the blob at `path` if it is there."""
        self._file(path).unlink(missing_ok=True)

    def paths(self, prefix: str) -> Iterator[str]:
        """Paths below the folder `prefix`, in any order; temporary files of running writers are left out."""
        folder = self._file(prefix)
        if not folder.is_dir():
            return
        for file in folder.rglob("*"):
            if file.is_file() and not file.name.startswith("."):
                yield file.relative_to(self.root).as_posix()

    def locate(self, path: str) -> str:
        """The file's path."""
        return str(self._file(path))
