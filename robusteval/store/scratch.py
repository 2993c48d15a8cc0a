"""Scratch space of one cell: what an interrupted attempt leaves for the next one. Deleted when the cell is done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import CorruptRecordError
from robusteval.schema.types import JsonValue
from robusteval.store.atomic import write_atomically

RESTART = "delete this file, or run with --resume failed, to start the cell again"


class Scratch:
    """Named blobs in one folder; each write replaces the old blob in one step, each read checks it.

    Args:
        folder: created on the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, blob: bytes) -> None:
        """Store `blob` under `name`; an interrupted write leaves the old one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / name, sha256_hex(blob).encode() + b"\n" + blob)

    def get(self, name: str) -> bytes | None:
        """The blob under `name`, or None.

        Raises:
            CorruptRecordError: the file does not match its digest.
        """
        path = self.folder / name
        try:
            digest, separator, blob = path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CorruptRecordError(f"{path}: the saved state cannot be read ({error.strerror}); {RESTART}") from None
        if not separator or sha256_hex(blob).encode() != digest:
            raise CorruptRecordError(f"{path}: the saved state is damaged; {RESTART}")
        return blob

    def drop(self, name: str) -> None:
        """Delete the blob under `name` if there is one."""
        (self.folder / name).unlink(missing_ok=True)

    def damaged(self) -> dict[Path, str]:
        """Files that do not match their digest, with what is wrong."""
        found = {}
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            if not path.name.startswith("."):
                try:
                    self.get(path.name)
                except CorruptRecordError as error:
                    found[path] = str(error)
        return found

    def put_json(self, name: str, value: JsonValue) -> None:
        """Store a JSON value."""
        self.put(name, json.dumps(value, allow_nan=False).encode())

    def get_json(self, name: str) -> JsonValue | None:
        """Read a JSON value back, or None.

        Raises:
            CorruptRecordError: the file does not match its digest, or holds no JSON.
        """
        blob = self.get(name)
        try:
            return None if blob is None else json.loads(blob)
        except (ValueError, RecursionError):
            raise self.not_understood(name) from None

    def not_understood(self, name: str) -> CorruptRecordError:
        """The error for a blob whose digest is right and whose content is not what its reader needs.

        The blob is moved out of the way, under a hidden name beside it, so that the next attempt starts without it.
        """
        path, aside = self.folder / name, self.folder / f".{name}.unreadable"
        try:
            path.replace(aside)
        except OSError:
            return CorruptRecordError(f"{path}: not a saved state that can be read; {RESTART}")
        return CorruptRecordError(
            f"{path}: not a saved state that can be read; it is kept as {aside.name}, --resume failed starts without it"
        )

    def clear(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
