"""An object store that is slow and fails a fifth of its calls, for workers of other processes.

Its folder is put on the path of a process together with an entry point, by which fsspec takes it for `memory://`; its
buckets lie beside this file.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem

BUCKETS = Path(__file__).resolve().parent / "buckets"
SHARE = 0.2
"""Share of calls that fail, half of them after they were carried out."""
DELAY_S = 0.01
"""Mean time of a call."""


class FaultyStore(AbstractFileSystem):  # type: ignore[misc]
    """Objects as files."""

    protocol = "memory"
    cachable = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._random = random.Random()

    def _file(self, path: str) -> Path:
        return BUCKETS / self._strip_protocol(path).lstrip("/")

    def _call(self, work: Any) -> Any:
        time.sleep(self._random.uniform(0, 2 * DELAY_S))
        draw = self._random.random() / SHARE
        if draw < 0.5:
            raise OSError(121, "the service is having a moment")
        found = work()
        if draw < 1.0:
            raise TimeoutError("the answer was lost")
        return found

    def cat_file(self, path: str, start: Any = None, end: Any = None, **options: Any) -> bytes:
        """An object."""
        return bytes(self._call(self._file(path).read_bytes))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        """Write an object in one step."""

        def write() -> None:
            file = self._file(path)
            file.parent.mkdir(parents=True, exist_ok=True)
            part = BUCKETS / f".{secrets.token_hex(8)}"
            part.write_bytes(value)
            try:
                if mode == "create":
                    os.link(part, file)
                else:
                    part.replace(file)
            finally:
                part.unlink(missing_ok=True)

        self._call(write)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Size and kind of an object."""

        def look() -> dict[str, Any]:
            file = self._file(path)
            return {"name": path, "size": file.stat().st_size, "type": "directory" if file.is_dir() else "file"}

        found: dict[str, Any] = self._call(look)
        return found

    def find(self, path: str, *arguments: Any, **options: Any) -> list[str]:
        """All objects below a prefix."""

        def look() -> list[str]:
            return [str(file.relative_to(BUCKETS)) for file in self._file(path).rglob("*") if file.is_file()]

        found: list[str] = self._call(look)
        return found

    def rm_file(self, path: str) -> None:
        """Delete an object."""
        self._call(self._file(path).unlink)
