"""Which image files a folder tree holds, and the digest of their contents, computed once per changed file."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robusteval.data.imageset import canonical_rank
from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import CorruptRecordError, DataError
from robusteval.store.atomic import write_atomically

EXTENSIONS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""File name endings that count as images, in lower case; every other file is ignored."""
_SETTLED_NS = 2_000_000_000
"""A file changed so shortly before it was hashed could change again within the clock's resolution; its digest is
not remembered."""


@dataclass(frozen=True)
class FileStamp:
    """One file as it lies on disk.

    Attributes:
        path: relative to the root, with forward slashes.
        size: bytes.
        modified: modification time in nanoseconds.
    """

    path: str
    size: int
    modified: int


@dataclass(frozen=True)
class ImageFile(FileStamp):
    """One image file; its path is the example id.

    Attributes:
        top: a domain or a split: the first folder on the path of a tree, empty if there is only one.
        label: the class: the next folder.
    """

    top: str
    label: str


def stamped(root: Path, path: str) -> FileStamp:
    """The file at `root/path`.

    Raises:
        DataError: it cannot be read, or is no regular file.
    """
    try:
        found = (root / path).stat()
    except OSError as error:
        raise DataError(f"{root / path}: cannot be read ({error.strerror}); put the file there") from None
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{root / path}: is not a regular file; put a file there")
    return FileStamp(path, found.st_size, found.st_mtime_ns)


def complaint(root: Path, what: str, problems: Sequence[str]) -> DataError:
    """One error that names every problem."""
    return DataError(f"{root}: {what}: {'; '.join(problems)}")


def list_images(root: Path, *, only: Sequence[str] = (), depth: Literal[1, 2] = 2) -> tuple[ImageFile, ...]:
    """Every image under `root/first/second/`, ordered by first folder and then by `canonical_rank` of the path.

    Hidden files and folders and files that are no images are ignored.

    Args:
        root: the tree.
        only: first folders to look into; all by default.
        depth: 1 for a tree class/file.

    Raises:
        DataError: the root is no folder; it holds no image; an image lies outside `first/second/`; a first folder or a
            class folder is empty; a link leaves the root or leads to a folder; an image is a pipe or device; a name is
            not UTF-8.
    """
    shape = "class/file" if depth == 1 else "domain/class/file or split/class/file"
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the root of a tree {shape}")
    problems: list[str] = []
    misplaced: list[str] = []
    files: list[ImageFile] = []
    folders: set[tuple[str, ...]] = set()
    for name, found in _walk(root, only, problems):
        parts = name.split("/")
        if found is None:
            folders.add(tuple(parts[:depth]))
        elif len(parts) <= depth:
            misplaced.append(name)
        else:
            top, label = (parts[0], parts[1]) if depth == 2 else ("", parts[0])
            files.append(ImageFile(name, found.st_size, found.st_mtime_ns, top, label))
    strays = {name.partition("/")[0] for name in misplaced}
    problems.extend(text for top, text in _empty_folders(folders, files, depth) if top not in strays)
    if misplaced:
        where = "class/" if depth == 1 else "domain/class/ or split/class/"
        problems.append(f"{len(misplaced)} images are not inside {where}, such as {misplaced[0]}")
    if problems:
        raise complaint(root, "this tree cannot be used", problems)
    if not files:
        raise DataError(f"{root}: no image found; expected {shape}")
    return tuple(sorted(files, key=lambda file: (file.top, canonical_rank(file.path), file.path)))


def _empty_folders(folders: set[tuple[str, ...]], files: Sequence[ImageFile], depth: int) -> Iterator[tuple[str, str]]:
    """First folder and complaint for class folders and first folders without an image; a folder is named once."""
    filled: set[tuple[str, ...]] = {(file.top, file.label)[2 - depth :] for file in files}
    tops = {parts[0] for parts in folders if depth == 2} - {parts[0] for parts in filled}
    for top in sorted(tops):
        yield top, f"folder {top} holds no image; fill or remove it"
    for parts in sorted(folders - filled):
        if len(parts) == depth and parts[0] not in tops:
            yield parts[0], f"class folder {'/'.join(parts)} holds no image; fill or remove it"


def _walk(root: Path, only: Sequence[str], problems: list[str]) -> Iterator[tuple[str, os.stat_result | None]]:
    """Visible folders (with None) and image files under `root`, by relative path; refusals go to `problems`."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as found:
                entries = sorted((entry for entry in found if entry.name[:1] != "."), key=lambda entry: entry.name)
        except OSError as error:
            problems.append(f"{error.filename} cannot be read ({error.strerror})")
            continue
        for entry in entries:
            is_folder = _is_folder(entry)
            if only and not folder and (entry.name not in only or not is_folder):
                continue
            if not is_folder and not entry.name.lower().endswith(tuple(EXTENSIONS)):
                continue
            name = f"{folder}/{entry.name}" if folder else entry.name
            reason = _refusal(entry, root)
            if reason:
                problems.append(f"{os.fsencode(name).decode('utf-8', 'replace')} {reason}")
            elif is_folder:
                yield name, None
                waiting.append(name)
            else:
                yield name, entry.stat()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _refusal(entry: os.DirEntry[str], root: Path) -> str | None:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    if entry.is_symlink():
        path = Path(entry.path)
        if not path.exists():
            return "is a link to nothing"
        if not path.resolve().is_relative_to(root):
            return "is a link that leaves the root"
        if path.is_dir():
            return "is a link to a folder"
    # Opening a pipe would wait for a writer for ever.
    return None if entry.is_file() or entry.is_dir() else "is not a regular file"


def content_digests(root: Path, files: Sequence[FileStamp], manifest: Path) -> dict[str, str]:
    """SHA-256 of every file by relative path; files of known size and modification time are not read again.

    Args:
        root: the tree.
        files: files in it.
        manifest: where digests are remembered, replaced in one step.

    Raises:
        CorruptRecordError: the manifest is damaged.
        DataError: a file cannot be read, or the manifest cannot be written.
    """
    known = _read_manifest(manifest)
    digests = {file.path: known.get(_stamp(file), "") for file in files}
    unknown = [file for file in files if not digests[file.path]]
    started = time.time_ns()
    problems: list[str] = []

    def digest(file: FileStamp) -> str:
        try:
            with (root / file.path).open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            problems.append(f"{file.path} ({error.strerror})")
            return ""

    with ThreadPoolExecutor(max_workers=reader_threads()) as pool:
        digests |= {file.path: found for file, found in zip(unknown, pool.map(digest, unknown), strict=True)}
    if problems:
        raise complaint(root, f"{len(problems)} files cannot be read", sorted(problems))
    old_enough = started - _SETTLED_NS
    settled = {
        stamp: digests[file.path] for file in files if (stamp := _stamp(file)) in known or file.modified < old_enough
    }
    if settled != known:
        _write_manifest(manifest, settled)
    return digests


def reader_threads() -> int:
    """Threads that read and decode images."""
    return min(8, os.cpu_count() or 1)


def _stamp(file: FileStamp) -> str:
    return f"{file.size} {file.modified} {file.path}"


def _read_manifest(path: Path) -> dict[str, str]:
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give another 'cache' folder") from None
    if sha256_hex(text).encode() != digest:
        raise CorruptRecordError(f"{path}: this list of image digests is damaged; delete it to read the images again")
    known: dict[str, str] = json.loads(text)
    return known


def _write_manifest(path: Path, known: dict[str, str]) -> None:
    text = json.dumps(known).encode()
    try:
        write_atomically(path, sha256_hex(text).encode() + b"\n" + text)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); give another 'cache' folder") from None
