"""The store: records by cell key, artefacts by content, both written once and checked on every read.

records/<kk>/<key>.json             result of a cell (kk: first two characters of the key)
failures/<kk>/<key>.json            the last failed attempt of a cell that has no result
conflicts/<key>/<digest>.json       another result of the same question: nondeterminism, both are kept
artefacts/<dd>/<digest>.safetensors checkpoints, adversarial images, details of evaluations
ids/<digest>.json                   example ids and groups of a slice
plans/<suite>@<version>.json        which cells fill which place of a suite's table
shards/<kk>/<key>/<i>of<n>.share    what a share of a long cell found, until the cell has its result
leases/<key>-<n>.json               who executes a cell now
damaged/<digest>-<name>             what was in the way of a new result, to look at
store.json                          the version of these formats
scratch/<key>/ , locks/<key>.lock   work in progress, on this machine only

A store in a bucket has its last line in a folder of the user's cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robusteval.schema.errors import CorruptRecordError, NewerFormatError, StoreError
from robusteval.schema.plans import StoredPlan
from robusteval.schema.records import ResultRecord
from robusteval.store.access import check_readable, check_writable
from robusteval.store.artefacts import REPAIR, Artefacts, artefact_path
from robusteval.store.backend import LocalBackend
from robusteval.store.envelope import decode_plan, decode_record, encode_record
from robusteval.store.leases import Leases
from robusteval.store.location import Location, resolve
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


class Store(Artefacts):
    """Records and artefacts behind one URI.

    Args:
        location: where blobs live, and what of it is on this machine.
    """

    def __init__(self, location: Location) -> None:
        super().__init__(location.backend, location.cache)
        self.local = location.local
        self.uri = location.uri
        self.leases = Leases(location.backend, location.local)

    @classmethod
    def open(cls, uri: str | Path) -> Store:
        """Open the store at a folder or a URI; an absent folder is an empty store.

        Raises:
            UsageError: the URI has a scheme that is not supported, or names a file; or a package is missing for it.
        """
        return cls(resolve(uri))

    def check(self) -> None:
        """Raise an error as in `access.check_readable` if the store cannot be used."""
        check_readable(self.backend)

    def check_writable(self) -> None:
        """Raise an error as in `access.check_writable` if results cannot be stored."""
        check_writable(self.backend)

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
        path = _path("records", key)
        record = self._read(path, key)
        if record is None:
            raise StoreError(f"{self.backend.locate(path)}: no such record")
        return record

    def get_failure(self, key: str) -> ResultRecord | None:
        """The last failed attempt of a cell that has no result."""
        return self._read(_path("failures", key), key)

    def latest(self, key: str) -> ResultRecord | None:
        """The result of a cell, or else its last failed attempt, or None.

        Raises:
            StoreError: the file cannot be read.
        """
        return self._read(_path("records", key), key) or self.get_failure(key)

    def state(self, key: str) -> tuple[CellState, str]:
        """State of a cell and the reason for it, from what is on disk alone.

        A result of a newer robusteval counts as failed: it is neither read nor damaged.
        """
        try:
            record = self._read(_path("records", key), key)
            if record is not None:
                if record.training is not None:
                    self.check_artefact(record.training.weights)
                return "done", "stored"
            failure = self.get_failure(key)
        except NewerFormatError as error:
            return "failed", str(error)
        except (StoreError, OSError) as error:
            return "corrupt", str(error)
        damage = self.damaged_scratch(key)
        if damage is not None:
            return "corrupt", damage
        if failure is not None and failure.failure is not None:
            return "failed", f"{failure.failure.type}: {failure.failure.message}"
        return "missing", "not run yet"

    def damaged_scratch(self, key: str) -> str | None:
        """What is wrong with what an attempt left on this machine, if anything is."""
        return next(iter(self.scratch(key).damaged().values()), None)

    def refuse_newer(self, key: str) -> None:
        """Raise if a newer robusteval wrote the result of a cell, so that nobody computes it for nothing.

        Raises:
            NewerFormatError: it did.
        """
        with contextlib.suppress(CorruptRecordError):
            self._read(_path("records", key), key)

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
                    yield from [] if record is None else [record]

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
                if record is not None and record.training is not None:
                    paths += [path, artefact_path(record.training.weights)]
        for path in paths:
            if self.backend.exists(path):
                self.displace(path)
        here = Artefacts(LocalBackend(self.local))
        for file in self.scratch(key).damaged():
            here.displace(file.relative_to(self.local).as_posix())

    def _read(self, path: str, key: str) -> ResultRecord | None:
        blob, where = self._blob(path), self.backend.locate(path)
        if blob is None:
            return None
        record = decode_record(blob, where, REPAIR)
        if record.cell_key != key:
            raise CorruptRecordError(f"{where}: holds another cell, {record.cell_key[:12]}; {REPAIR}")
        return record

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


def _path(folder: str, key: str) -> str:
    return f"{folder}/{key[:2]}/{key}.json"


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
