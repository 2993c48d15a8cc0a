"""Writing a file so that a reader sees the old content or the new one, never a part."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write to a temporary file beside `path`, flush it to disk, and rename it over `path`.

    Args:
        path: the file; its folder is made if need be.
        data: all of its content.
        durable: whether it must outlive a power cut; what means nothing afterwards is not flushed.

    Raises:
        OSError: no space, no permission; the old file is intact and the temporary one removed.
    """
    temporary = _write_beside(path, data, durable=durable)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(path.parent)


def create_atomically(path: Path, data: bytes, *, durable: bool = True) -> bool:
    """Like `write_atomically`, but only if `path` does not exist; of several writers exactly one succeeds.

    Returns:
        Whether this call created the file.
    """
    temporary = _write_beside(path, data, durable=durable)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        _sync_folder(path.parent)
    return True


def _write_beside(path: Path, data: bytes, *, durable: bool) -> Path:
    """Write `data`, flushed to disk if `durable`, to a temporary file in the folder of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
