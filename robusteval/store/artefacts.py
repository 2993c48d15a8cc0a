"""The part of a store whose names are digests of content: checkpoints, other artefacts, and the id lists of slices."""

from __future__ import annotations

import secrets
from pathlib import Path

from robusteval.schema.digest import ids_digest, sha256_hex
from robusteval.schema.errors import CorruptRecordError, StoreError
from robusteval.store.backend import Backend
from robusteval.store.blob_cache import BlobCache
from robusteval.store.envelope import decode_ids, encode_ids

REPAIR = "look at it, then run again with --resume failed to set it aside and compute it anew"


class Artefacts:
    """Blobs addressed by content, written once and checked on every read.

    Args:
        backend: where blobs live.
        cache: local copies, for a backend that is far away.
    """

    def __init__(self, backend: Backend, cache: BlobCache | None = None) -> None:
        self.backend = backend
        self.cache = cache

    def put_artefact(self, blob: bytes) -> str:
        """Store a checkpoint; returns its SHA-256.

        A damaged file in its place is set aside: the right bytes are at hand, so nothing is lost.
        """
        digest = sha256_hex(blob)
        path = artefact_path(digest)
        if self.backend.exists(path):
            try:
                self.get_artefact(digest)
                return digest
            except CorruptRecordError:
                self.displace(path)
        self.backend.create(path, blob)
        if self.cache is not None:
            self.cache.put(digest, blob)
        return digest

    def get_artefact(self, digest: str, what: str = "checkpoint") -> bytes:
        """Read an artefact back, from this machine's copy if there is one.

        Args:
            digest: its SHA-256.
            what: what it is, for messages.

        Raises:
            StoreError: there is none.
            CorruptRecordError: its content does not have this digest.
        """
        kept = None if self.cache is None else self.cache.get(digest)
        if kept is not None:
            return kept
        path = artefact_path(digest)
        blob = self._blob(path)
        if blob is None:
            raise self._missing(path, what)
        if sha256_hex(blob) != digest:
            raise CorruptRecordError(f"{self.backend.locate(path)}: the {what} is damaged; {REPAIR}")
        if self.cache is not None:
            self.cache.put(digest, blob)
        return blob

    def check_artefact(self, digest: str) -> None:
        """Look whether a checkpoint is there and, where reading it costs no transfer, whether it is whole.

        Raises:
            StoreError: it is not.
        """
        if self.cache is None:
            self.get_artefact(digest)
        elif not self.backend.exists(artefact_path(digest)):
            raise self._missing(artefact_path(digest), "checkpoint")

    def put_ids(self, ids: tuple[str, ...], groups: tuple[str, ...]) -> None:
        """Store the ordered example ids of a slice and what each was made from; a damaged list is set aside."""
        digest = ids_digest(ids)
        path = f"ids/{digest}.json"
        if self.backend.exists(path):
            try:
                self.groups(digest)
                return
            except CorruptRecordError:
                self.displace(path)
        self.backend.create(path, encode_ids(ids, groups))

    def groups(self, digest: str) -> list[str] | None:
        """Group names of a slice in its order; None if every example stands alone.

        Raises:
            StoreError: the id list is missing.
            CorruptRecordError: it is damaged.
        """
        return self.ids(digest)[1]

    def ids(self, digest: str) -> tuple[list[str], list[str] | None]:
        """Example ids of a slice in its order, and their groups as in `groups`.

        Raises:
            StoreError: the id list is missing.
            CorruptRecordError: it is damaged.
        """
        path = f"ids/{digest}.json"
        return decode_ids(self._blob(path), digest, self.backend.locate(path))

    def _missing(self, path: str, what: str) -> StoreError:
        return StoreError(f"{self.backend.locate(path)}: the {what} is missing; {REPAIR}")

    def displace(self, path: str) -> None:
        """Move what is at `path` to the damaged files, to look at."""
        try:
            mark = sha256_hex(self._blob(path) or b"")[:12]
        except CorruptRecordError:  # a folder, or not readable
            mark = secrets.token_hex(6)
        self.backend.displace(path, f"damaged/{mark}-{Path(path).name}")

    def _blob(self, path: str) -> bytes | None:
        """The blob at `path`, or None; what is there and cannot be read counts as damaged."""
        try:
            return self.backend.read(path)
        except OSError as error:
            where = self.backend.locate(path)
            raise CorruptRecordError(f"{where}: cannot be read ({error.strerror or error}); {REPAIR}") from None


def artefact_path(digest: str) -> str:
    """Where an artefact lies in its store."""
    return f"artefacts/{digest[:2]}/{digest}.safetensors"
