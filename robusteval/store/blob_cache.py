"""Local copies of blobs that are named by their SHA-256, so that a checkpoint crosses the network once a machine."""

from __future__ import annotations

import contextlib
from pathlib import Path

from robusteval.schema.digest import sha256_hex
from robusteval.store.atomic import write_atomically


class BlobCache:
    """Blobs by digest in one folder; a copy that was changed is never given out.

    Args:
        folder: created on the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, digest: str) -> bytes | None:
        """The blob with this digest, or None; a damaged copy is dropped."""
        file = self._file(digest)
        try:
            blob = file.read_bytes()
        except OSError:
            return None
        if sha256_hex(blob) == digest:
            return blob
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
        return None

    def put(self, digest: str, blob: bytes) -> None:
        """Keep a copy, unless the disk has no room for it: the store has the blob."""
        with contextlib.suppress(OSError):
            write_atomically(self._file(digest), blob, durable=False)

    def _file(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest
