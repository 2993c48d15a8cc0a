"""Whether a dataset on disk is what it was when it was first verified."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from robusteval.data.folder_index import reader_threads
from robusteval.schema.digest import canonical_json, sha256_hex
from robusteval.schema.errors import CorruptRecordError, DataError
from robusteval.store.atomic import write_atomically

_FORMAT = 1


@dataclass(frozen=True)
class FileChanges:
    """What differs from the list of an earlier verification.

    Attributes:
        files: files that are there.
        size: their bytes.
        first: there was no list yet, so nothing could differ.
        changed: files with another content.
        missing: files that are gone.
        added: files that are new.
        listing: where the list is kept.
    """

    files: int
    size: int
    first: bool
    changed: tuple[str, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]
    listing: Path

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.changed or self.missing or self.added)


def verify_files(root: Path, cache: Path, progress: Callable[[int, int], None], *, accept: bool = False) -> FileChanges:
    """Hash every visible file under `root` and compare with the list that the first call wrote.

    Args:
        root: the dataset.
        cache: folder in which lists are kept.
        progress: told how many files of how many are done.
        accept: replace the list by what is there now.

    Raises:
        DataError: a file cannot be read, or the list cannot be written.
        CorruptRecordError: the list is damaged.
    """
    listing = cache / "verified" / f"{sha256_hex(str(root).encode())[:32]}.json"
    known = None if accept else _read(listing)
    paths = sorted(_visible(root))
    digests: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=reader_threads()) as pool:
        for path, digest in zip(paths, pool.map(lambda path: _digest(root / path), paths), strict=True):
            digests[path] = digest
            progress(len(digests), len(paths))
    if known is None:
        _write(listing, digests)
    before = digests if known is None else known
    return FileChanges(
        files=len(paths),
        size=sum((root / path).stat().st_size for path in paths),
        first=known is None,
        changed=tuple(path for path in paths if path in before and before[path] != digests[path]),
        missing=tuple(sorted(before.keys() - digests.keys())),
        added=tuple(sorted(digests.keys() - before.keys())),
        listing=listing,
    )


def _visible(root: Path) -> list[str]:
    """Files under `root`, relative to it; links are followed at the top, where parts of a dataset are put together."""
    found: list[str] = []
    for top in root.iterdir():
        if top.name[:1] == ".":
            continue
        if top.is_file():
            found.append(top.name)
        for folder, subfolders, names in os.walk(top):
            subfolders[:] = [name for name in subfolders if name[:1] != "."]
            paths = [Path(folder, name) for name in names if name[:1] != "."]
            found += [path.relative_to(root).as_posix() for path in paths if path.is_file()]
    return found


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); get the file again") from None


def _read(listing: Path) -> dict[str, str] | None:
    try:
        digest, _, text = listing.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    if sha256_hex(text).encode() != digest:
        raise CorruptRecordError(f"{listing}: this list of digests is damaged; delete it to verify afresh")
    known: dict[str, str] = json.loads(text)["files"]
    return known


def _write(listing: Path, digests: dict[str, str]) -> None:
    text = canonical_json({"format": _FORMAT, "files": digests})
    try:
        write_atomically(listing, sha256_hex(text).encode() + b"\n" + text)
    except OSError as error:
        raise DataError(f"{listing}: cannot be written ({error.strerror}); make room there") from None
