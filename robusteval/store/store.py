"""The store: records by cell key, artefacts by content, both written once and checked on every read.

records/<kk>/<key>.json             result of a cell (kk: first two characters of the key)
failures/<kk>/<key>.json            the last failed attempt of a cell that has no result
conflicts/<key>/<digest>.json       another result of the same question: nondeterminism, both are kept
artefacts/<dd>/<digest>.safetensors checkpoints
ids/<digest>.json                   example ids and groups of a slice
plans/<suite>@<version>.json        which cells fill which place of a suite's table
scratch/<key>/ , locks/<key>.lock   work in progress, on this machine only
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlparse

from filelock import FileLock
from pydantic import ValidationError

from robusteval.schema.digest import ids_digest, sha256_hex
from robusteval.schema.errors import CorruptRecordError, StoreError, UsageError
from robusteval.schema.plans import StoredPlan
from robusteval.schema.records import ResultRecord
from robusteval.store.backend import Backend, LocalBackend
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
        blob = _encode(record)
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
        """
        return self._read(_path("records", key), key)

    def get_failure(self, key: str) -> ResultRecord | None:
        """The last failed attempt of a cell that has no result."""
        path = _path("failures", key)
        return self._read(path, key) if self.backend.exists(path) else None

    def state(self, key: str) -> tuple[CellState, str]:
        """State of a cell and the reason for it, from what is on disk alone."""
        if self.backend.exists(_path("records", key)):
            try:
                record = self.get(key)
                if record.training is not None:
                    self.get_artefact(record.training.weights)
            except StoreError as error:
                return "corrupt", str(error)
            return "done", "stored"
        try:
            failure = self.get_failure(key)
        except CorruptRecordError as error:
            return "corrupt", str(error)
        if failure is not None and failure.failure is not None:
            return "failed", f"{failure.failure.type}: {failure.failure.message}"
        return "missing", "not run yet"

    def records(self) -> Iterator[ResultRecord]:
        """Every stored result, in any order."""
        for path in self.backend.paths("records"):
            if path.endswith(".json"):
                yield self._read(path, Path(path).stem)

    def conflicts(self, key: str) -> list[str]:
        """Digests of further results of the same cell."""
        return sorted(Path(path).stem for path in self.backend.paths(f"conflicts/{key}"))

    def set_aside(self, key: str) -> None:
        """Move a cell's damaged files out of the way, so that it can be run again; nothing is deleted."""
        paths = [_path("records", key), _path("failures", key)]
        try:
            record = self.get(key)
        except StoreError:
            record = None
        if record is not None and record.training is not None:
            paths.append(_artefact_path(record.training.weights))
        for path in paths:
            blob = self.backend.read(path)
            if blob is not None:
                self.backend.write(f"damaged/{sha256_hex(blob)[:12]}-{Path(path).name}", blob)
                self.backend.delete(path)

    def _read(self, path: str, key: str) -> ResultRecord:
        blob = self.backend.read(path)
        if blob is None:
            raise StoreError(f"{self.backend.locate(path)}: no such record")
        try:
            record = ResultRecord.model_validate_json(blob)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            detail = f"{where}: {first['msg']}" if where else first["msg"]
            raise CorruptRecordError(f"{self.backend.locate(path)}: damaged record ({detail}); {_REPAIR}") from None
        if record.cell_key != key:
            where = self.backend.locate(path)
            raise CorruptRecordError(f"{where}: holds another cell, {record.cell_key[:12]}; {_REPAIR}")
        return record

    # -- artefacts -------------------------------------------------------------------------------------------------

    def put_artefact(self, blob: bytes) -> str:
        """Store a checkpoint; returns its SHA-256."""
        digest = sha256_hex(blob)
        if not self.backend.create(_artefact_path(digest), blob):
            self.get_artefact(digest)
        return digest

    def get_artefact(self, digest: str) -> bytes:
        """Read a checkpoint back.

        Raises:
            StoreError: there is none.
            CorruptRecordError: its content does not have this digest.
        """
        path = _artefact_path(digest)
        blob = self.backend.read(path)
        if blob is None:
            raise StoreError(f"{self.backend.locate(path)}: the checkpoint is missing; {_REPAIR}")
        if sha256_hex(blob) != digest:
            raise CorruptRecordError(f"{self.backend.locate(path)}: the checkpoint is damaged; {_REPAIR}")
        return blob

    def put_ids(self, ids: tuple[str, ...], groups: tuple[str, ...]) -> None:
        """Store the ordered example ids of a slice and what each was made from."""
        document = {"ids": list(ids), "groups": None if groups == ids else list(groups)}
        self.backend.create(f"ids/{ids_digest(ids)}.json", json.dumps(document).encode())

    def groups(self, digest: str) -> list[str] | None:
        """Group names of a slice in its order; None if unknown or if every example stands alone."""
        blob = self.backend.read(f"ids/{digest}.json")
        if blob is None:
            return None
        try:
            document = json.loads(blob)
            ids, groups = document["ids"], document["groups"]
            damaged = ids_digest(ids) != digest or (groups is not None and len(groups) != len(ids))
        except (ValueError, KeyError, TypeError):
            damaged = True
        if damaged:
            raise CorruptRecordError(
                f"{self.backend.locate(f'ids/{digest}.json')}: damaged id list; delete it and run again"
            )
        return list(groups) if groups is not None else None

    # -- plans -----------------------------------------------------------------------------------------------------

    def put_plan(self, plan: StoredPlan) -> None:
        """Store which cells fill which place of a suite's table; the newest one of a name and version is kept."""
        self.backend.write(f"plans/{plan.suite}@{plan.version}.json", _encode(plan))

    def get_plan(self, suite: str, version: int | None = None) -> StoredPlan | None:
        """The stored plan of a suite; the highest version by default."""
        found = [plan for plan in self.plans() if plan.suite == suite and version in (None, plan.version)]
        return max(found, key=lambda plan: plan.version) if found else None

    def plans(self) -> list[StoredPlan]:
        """Every stored plan, by name and version.

        Raises:
            CorruptRecordError: one of them is damaged.
        """
        found = []
        for path in self.backend.paths("plans"):
            try:
                found.append(StoredPlan.model_validate_json(self.backend.read(path) or b""))
            except ValidationError:
                raise CorruptRecordError(
                    f"{self.backend.locate(path)}: damaged plan; run the suite again to write it anew"
                ) from None
        return sorted(found, key=lambda plan: (plan.suite, plan.version))

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


def _encode(model: ResultRecord | StoredPlan) -> bytes:
    return model.model_dump_json(indent=1).encode() + b"\n"


def _flips(old: ResultRecord, new: ResultRecord) -> int:
    if old.evaluation is None or new.evaluation is None:
        return 0
    before, after = old.evaluation.outcomes, new.evaluation.outcomes
    return sum(
        a != b
        for name in before.keys() & after.keys()
        for a, b in zip(before[name].unpack(), after[name].unpack(), strict=False)
    )
