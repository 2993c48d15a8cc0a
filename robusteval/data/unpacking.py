"""Unpacking archives so that what is there is whole: beside its place first, then moved into it."""

from __future__ import annotations

import gzip
import lzma
import shutil
import tarfile
import zlib
from pathlib import Path

from robusteval.schema.errors import DataError
from robusteval.store.atomic import write_atomically


def is_archive(path: Path) -> bool:
    """Whether a file is unpacked after it was fetched."""
    return path.name.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"))


def is_unpacked(name: str, folder: Path) -> bool:
    """Whether an archive of that name was unpacked into a folder before, and everything from it is still there."""
    try:
        placed = _note(name, folder).read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return bool(placed) and all((folder / part).exists() for part in placed)


def _note(name: str, folder: Path) -> Path:
    return folder / f".{name}.unpacked"


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Unpack a tar archive and note that it was.

    Nothing is written outside `folder`, and no owner, device or setuid bit is taken over.

    Args:
        archive: the file.
        folder: where its contents go; something of the same name there is replaced.

    Returns:
        What now lies in `folder`.

    Raises:
        DataError: the archive is damaged, holds something that leaves the folder, or there is no room.
    """
    beside = folder / f".{archive.name}.unpacking"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with tarfile.open(archive) as file:
            file.extractall(beside, filter="data")
        placed = []
        for path in sorted(beside.iterdir()):
            target = folder / path.name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            placed.append(path.replace(target))
        names = "".join(f"{path.name}\n" for path in placed)
        write_atomically(_note(archive.name, folder), names.encode())
    except tarfile.FilterError as error:
        raise DataError(
            f"{archive}: holds something that does not belong into a dataset ({error}); remove it"
        ) from None
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = str(error).partition(":\n")[0]
        raise DataError(f"{archive}: is no whole archive ({reason}); remove it and fetch it again") from None
    except OSError as error:
        raise DataError(f"{archive}: cannot be unpacked into {folder} ({error.strerror or error}); make room") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return placed
