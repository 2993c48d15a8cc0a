"""The store: records by cell key, artefacts by content, both written once and checked on every read.

records/<kk>/<key>.json             result of a cell (kk: first two characters of the key)
failures/<kk>/<key>.json            the last failed attempt of a cell that has no result
conflicts/<key>/<digest>.json       another result of the same question: nondeterminism, both are kept
artefacts/<dd>/<digest>.safetensors checkpoints
ids/<digest>.json                   example ids and groups of a slice
plans/<suite>@<version>.json        which cells fill which place of a suite's table
damaged/<digest>-<name>             what was in the way of a new result, to look at
scratch/<key>/ , locks/<key>.lock   work in progress, on this machine only
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlparse

from filelock import FileLock

from robusteval.schema.digest import ids_digest, sha256_hex
from robusteval.schema.errors import CorruptRecordError, NewerFormatError, StoreError, UsageError
from robusteval.schema.plans import StoredPlan
from robusteval.schema.records import ResultRecord
from robusteval.store.backend import Backend, LocalBackend
from robusteval.store.envelope import decode_ids, decode_plan, decode_record, encode_ids, encode_record
from robusteval.store.scratch import Scratch

CellState = Literal["done", "missing", "failed", "corrupt"]


@dataclass(frozen=True)
class PutOutcome:
    """What storing a record did.

    Attributes:
        status: `stored`, `unchanged` (same result was there) or `conflict` (another one was; both are kept).
        flipped: for a conflict of eval records, how many per-example outcomes differ.
    """

    status: Literal["stored", "unchanged", "conflict"]
    flipped: int = 0


class Store:
    """Records and artefacts behind one URI.

    Args:
        backend: where blobs live.
        local: folder of this machine for scratch space and locks.
        uri: how the store was addressed.
    """

    def __init__(self, backend: Backend, local: Path, uri: str) -> None:
        self.backend = backend
        self.local = local
        self.uri = uri

    @classmethod
    def open(cls, uri: str | Path) -> Store:
        """Open the store at a folder or a `file://` URI; an absent folder is an empty store.

        Raises:
            UsageError: the URI has a scheme that is not supported, or names a file.
        """
        text = str(uri)
        scheme = urlparse(text).scheme
        if scheme == "file":
            text = unquote(urlparse(text).path)
        elif len(scheme) > 1:
            raise UsageError(f"store {text!r}: scheme {scheme!r} is not supported; give a folder or file:///folder")
        root = Path(text).expanduser().absolute()
        if root.exists() and not root.is_dir():
            raise UsageError(f"store {root}: is a file; give a folder")
        return cls(LocalBackend(root), root, root.as_uri())

    # -- records ---------------------------------------------------------------------------------------------------

    def put(self, record: ResultRecord) -> PutOutcome:
        """Store the record of an executed cell; a result that is there already is never overwritten.

        Raises:
            CorruptRecordError: a damaged record is in the way.
            OSError: the disk is full or read-only; what was stored before is intact.
        """
        blob = encode_record(record)
        if record.status != "ok":
            self.backend.write(_path("failures", record.cell_key), blob)
            return PutOutcome("stored")
        path = _path("records", record.cell_key)
        if self.backend.create(path, blob):
            self.backend.delete(_path("failures", record.cell_key))
            return PutOutcome("stored")
        old = self.get(record.cell_key)
        if old.result_digest == record.result_digest:
            return PutOutcome("unchanged")
        self.backend.create(f"conflicts/{record.cell_key}/{record.result_digest}.json", blob)
        return PutOutcome("conflict", _flips(old, record))

    def get(self, key: str) -> ResultRecord:
        """The result of a cell.

        Raises:
            StoreError: there is none.
            CorruptRecordError: the file is damaged or not what its name says.
            NewerFormatError: a newer robusteval wrote it.
        """
        return self._read(_path("records", key), key)

    def get_failure(self, key: str) -> ResultRecord | None:
        """The last failed attempt of a cell that has no result."""
        path = _path("failures", key)
        return self._read(path, key) if self.backend.exists(path) else None

    def latest(self, key: str) -> ResultRecord | None:
        """The result of a cell, or else its last failed attempt, or None.

        Raises:
            StoreError: the file cannot be read.
        """
        return self.get(key) if self.backend.exists(_path("records", key)) else self.get_failure(key)

    def state(self, key: str) -> tuple[CellState, str]:
        """State of a cell and the reason for it, from what is on disk alone.

        A result of a newer robusteval counts as failed: it is neither read nor damaged.
        """
        try:
            if self.backend.exists(_path("records", key)):
                record = self.get(key)
                if record.training is not None:
                    self.get_artefact(record.training.weights)
                return "done", "stored"
            failure = self.get_failure(key)
        except NewerFormatError as error:
            return "failed", str(error)
        except (StoreError, OSError) as error:
            return "corrupt", str(error)
        for reason in self.scratch(key).damaged().values():
            return "corrupt", reason
        if failure is not None and failure.failure is not None:
            return "failed", f"{failure.failure.type}: {failure.failure.message}"
        return "missing", "not run yet"

    def refuse_newer(self, key: str) -> None:
        """Raise if a newer robusteval wrote the result of a cell, so that nobody computes it for nothing.

        Raises:
            NewerFormatError: it did.
        """
        if self.backend.exists(_path("records", key)):
            with contextlib.suppress(CorruptRecordError):
                self.get(key)

    def records(self, damaged: list[str] | None = None) -> Iterator[ResultRecord]:
        """Every stored result, in any order.

        Args:
            damaged: takes a line for each file that cannot be read, and the others still come; without it the first
                such file raises.

        Raises:
            StoreError: a file cannot be read, and nobody takes its line.
        """
        for path in self.backend.paths("records"):
            if path.endswith(".json"):
                try:
                    record = self._read(path, Path(path).stem)
                except StoreError as error:
                    _tell(error, damaged)
                else:
                    yield record

    def conflicts(self, key: str) -> list[str]:
        """Digests of further results of the same cell."""
        return sorted(Path(path).stem for path in self.backend.paths(f"conflicts/{key}"))

    def set_aside(self, key: str) -> None:
        """Move a cell's damaged files out of the way, so that it can be run again; nothing is deleted.

        What a newer robusteval wrote stays.
        """
        paths = []
        for path in (_path("records", key), _path("failures", key)):
            try:
                record = self._read(path, key)
            except NewerFormatError:
                return
            except StoreError:
                paths.append(path)
            else:
                paths += [path, _artefact_path(record.training.weights)] if record.training is not None else []
        paths += [path.relative_to(self.local).as_posix() for path in self.scratch(key).damaged()]
        for path in paths:
            if self.backend.exists(path):
                self._displace(path)

    def _displace(self, path: str) -> None:
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
            raise CorruptRecordError(f"{where}: cannot be read ({error.strerror or error}); {_REPAIR}") from None

    def _read(self, path: str, key: str) -> ResultRecord:
        blob, where = self._blob(path), self.backend.locate(path)
        if blob is None:
            raise StoreError(f"{where}: no such record")
        record = decode_record(blob, where, _REPAIR)
        if record.cell_key != key:
            raise CorruptRecordError(f"{where}: holds another cell, {record.cell_key[:12]}; {_REPAIR}")
        return record

    # -- artefacts -------------------------------------------------------------------------------------------------

    def put_artefact(self, blob: bytes) -> str:
        """Store a checkpoint; returns its SHA-256.

        A damaged file in its place is set aside: the right bytes are at hand, so nothing is lost.
        """
        digest = sha256_hex(blob)
        path = _artefact_path(digest)
        if self.backend.exists(path):
            try:
                self.get_artefact(digest)
                return digest
            except CorruptRecordError:
                self._displace(path)
        self.backend.create(path, blob)
        return digest

    def get_artefact(self, digest: str) -> bytes:
        """Read a checkpoint back.

        Raises:
            StoreError: there is none.
            CorruptRecordError: its content does not have this digest.
        """
        path = _artefact_path(digest)
        blob = self._blob(path)
        if blob is None:
            raise StoreError(f"{self.backend.locate(path)}: the checkpoint is missing; {_REPAIR}")
        if sha256_hex(blob) != digest:
            raise CorruptRecordError(f"{self.backend.locate(path)}: the checkpoint is damaged; {_REPAIR}")
        return blob

    def put_ids(self, ids: tuple[str, ...], groups: tuple[str, ...]) -> None:
        """Store the ordered example ids of a slice and what each was made from; a damaged list is set aside."""
        digest = ids_digest(ids)
        path = f"ids/{digest}.json"
        if self.backend.exists(path):
            try:
                self.groups(digest)
                return
            except CorruptRecordError:
                self._displace(path)
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

    # -- plans -----------------------------------------------------------------------------------------------------

    def put_plan(self, plan: StoredPlan) -> None:
        """Store which cells fill which place of a suite's table; the newest one of a name and version is kept."""
        self.backend.write(f"plans/{plan.suite}@{plan.version}.json", plan.model_dump_json(indent=1).encode() + b"\n")

    def get_plan(self, suite: str, version: int | None = None) -> StoredPlan | None:
        """The stored plan of a suite; the highest version by default.

        Raises:
            StoreError: one of this suite's plans cannot be read.
        """
        paths = (path for path in self.backend.paths("plans") if Path(path).stem.rpartition("@")[0] == suite)
        found = [plan for plan in map(self._read_plan, paths) if version in (None, plan.version)]
        return max(found, key=lambda plan: plan.version) if found else None

    def plans(self, damaged: list[str] | None = None) -> list[StoredPlan]:
        """Every stored plan, by name and version.

        Args:
            damaged: as in `records`.

        Raises:
            StoreError: one of them cannot be read, and nobody takes its line.
        """
        found = []
        for path in self.backend.paths("plans"):
            try:
                found.append(self._read_plan(path))
            except StoreError as error:
                _tell(error, damaged)
        return sorted(found, key=lambda plan: (plan.suite, plan.version))

    def _read_plan(self, path: str) -> StoredPlan:
        return decode_plan(self._blob(path) or b"", Path(path).stem, self.backend.locate(path))

    # -- this machine ----------------------------------------------------------------------------------------------

    def scratch(self, key: str) -> Scratch:
        """Scratch space of a cell."""
        return Scratch(self.local / "scratch" / key)

    def lock(self, key: str) -> FileLock:
        """Lock that whoever executes a cell holds; released by the system if the process dies."""
        folder = self.local / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{key}.lock")


_REPAIR = "look at it, then run again with --resume failed to set it aside and compute it anew"


def _path(folder: str, key: str) -> str:
    return f"{folder}/{key[:2]}/{key}.json"


def _artefact_path(digest: str) -> str:
    return f"artefacts/{digest[:2]}/{digest}.safetensors"


def _tell(error: StoreError, damaged: list[str] | None) -> None:
    if damaged is None:
        raise error
    damaged.append(str(error))


def _flips(old: ResultRecord, new: ResultRecord) -> int:
    if old.evaluation is None or new.evaluation is None:
        return 0
    before, after = old.evaluation.outcomes, new.evaluation.outcomes
    return sum(
        a != b
        for name in before.keys() & after.keys()
        for a, b in zip(before[name].unpack(), after[name].unpack(), strict=False)
    )
