"""The only entry of a worker: execute one cell and store its record.

Everything that touches torch, data or models for a run happens below this function, so that every executor runs
exactly the same code.
"""

from __future__ import annotations

import errno
import resource
import sys
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime

import torch
from pydantic import TypeAdapter, ValidationError

from robusteval.evaluators.base import no_progress
from robusteval.execution.determinism import torch_settings
from robusteval.execution.events import CellStatus, CellSummary, CellTask
from robusteval.execution.ranks import measure_with_ranks, train_with_ranks, why_one_process
from robusteval.execution.sharding import ShardBox, measure_into_box, merge_from_box
from robusteval.execution.work import evaluate_cell, measure, train_cell
from robusteval.models.classifier import Classifier
from robusteval.schema.cells import AnyCell, EvalCell, TrainCell
from robusteval.schema.errors import BusyError, StoreError, UnreachableError
from robusteval.schema.records import Evaluation, Failure, ResultRecord, Timing, TrainingResult, result_digest
from robusteval.schema.types import Frozen, NonNegativeFloat, Progress
from robusteval.store.provenance import describe_provenance
from robusteval.store.store import Store

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
"""With these no record can be written either, so the failure is only reported."""

_CELL: TypeAdapter[TrainCell | EvalCell] = TypeAdapter(AnyCell)


def run_cell(task: CellTask, store_uri: str, progress: Progress) -> CellSummary:
    """Execute one cell, unless it has a result or another process is at it, and store the record.

    A failure of the cell is stored with its traceback and returned as a summary; it never propagates.

    Args:
        task: what to do and where.
        store_uri: where results go.
        progress: told the finished fraction and what runs now.
    """
    store = Store.open(store_uri)
    started = time.monotonic()
    try:
        whole = "" if task.shard is None else _CELL.validate_json(task.cell).key
        with store.leases.hold(task.key, share_of=whole) as hold:
            state, reason = store.state(task.key)
            if task.shard is not None:
                if not task.again and store.state(_CELL.validate_json(task.cell).key)[0] == "done":
                    return CellSummary(task.key, "cached", time.monotonic() - started, "its cell has a result")
                if state == "corrupt":  # a share under way; what it knew is measured again
                    store.set_aside(task.key)
            elif state == "corrupt":
                return CellSummary(task.key, "failed", 0.0, reason)
            elif state == "done" and not task.again:
                return CellSummary(task.key, "cached", time.monotonic() - started, headline(store.get(task.key)))
            store.refuse_newer(task.key)
            return _execute(task, store, hold.watching(progress))
    except BusyError as error:
        return CellSummary(task.key, "busy", time.monotonic() - started, str(error))
    except (OSError, StoreError, UnreachableError) as error:
        return CellSummary(task.key, "failed", time.monotonic() - started, f"{type(error).__name__}: {error}")


def run_live(cell: EvalCell, model: Classifier, store: Store, device: str, threads: int) -> ResultRecord:
    """Measure a model that lives in this process, unless the cell has a result, and store the record.

    Unlike in `run_cell` a failure propagates with the model's own traceback, and nothing is stored of it: the model may
    be another one tomorrow. Waits where another process is at the same cell.

    Args:
        cell: what to measure.
        model: the model, on `device`; its modules keep their modes.
        store: where the result goes.
        device: device in words.
        threads: CPU threads.

    Raises:
        StoreError: a stored result cannot be read.
    """
    task = CellTask(key=cell.key, cell=cell.model_dump_json(), device=device, threads=threads)
    with store.leases.hold(cell.key, wait=True) as hold:
        state, _ = store.state(cell.key)
        if state in ("done", "corrupt"):
            return store.get(cell.key)
        clock = _Clock(store, cell.key)
        with torch_settings(threads), model.mode(training=False):
            evaluation = measure(cell, model, store, clock.watching(hold.watching(no_progress)))
        record = _record(cell, _Attempt(evaluation=evaluation), task, clock)
        store.put(record)
        store.scratch(cell.key).clear()
    return record


@dataclass
class _Attempt:
    """What one attempt found."""

    evaluation: Evaluation | None = None
    training: TrainingResult | None = None
    failure: Failure | None = None
    note: str = ""


def _find(cell: TrainCell | EvalCell, task: CellTask, store: Store, clock: _Clock, progress: Progress) -> _Attempt:
    """Do what a task asks for."""
    if task.shard is not None:
        assert isinstance(cell, EvalCell)
        measure_into_box(cell, task, store, progress, clock.elapsed)
        return _Attempt()
    alone = why_one_process(cell) if task.ranks > 1 else ""
    note = f"cell {task.key[:12]} ran in one process instead of {task.ranks}: {alone}" if alone else ""
    if isinstance(cell, TrainCell):
        if alone is None:
            return _Attempt(training=train_with_ranks(task, store.uri, progress))
        return _Attempt(training=train_cell(cell, store, task.device, progress), note=note)
    if task.merges:
        evaluation, seconds = merge_from_box(cell, task.merges, store)
        clock.add(seconds)
        return _Attempt(evaluation=evaluation)
    if alone is None:
        return _Attempt(merge_from_box(cell, measure_with_ranks(task, store.uri, progress), store)[0])
    return _Attempt(evaluation=evaluate_cell(cell, store, task.device, progress), note=note)


def _execute(task: CellTask, store: Store, progress: Progress) -> CellSummary:
    cell = _CELL.validate_json(task.cell)
    clock = _Clock(store, task.key)
    attempt = _Attempt()
    with torch_settings(task.threads):
        try:
            attempt = _find(cell, task, store, clock, clock.watching(progress))
        except (BusyError, UnreachableError):  # says nothing about the cell
            raise
        except Exception as error:  # the one place where a cell's failure becomes a record
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise
            attempt.failure = Failure(
                type=type(error).__name__,
                message=str(error) or repr(error),
                traceback=traceback.format_exc(),
                stage=cell.kind,
            )
    if task.shard is not None and attempt.failure is None:
        store.scratch(task.key).clear()
        return CellSummary(task.key, "ok", clock.elapsed(), f"share {task.shard}")
    record = _record(cell, attempt, task, clock)
    outcome = store.put(record)
    if attempt.failure is None:
        store.scratch(task.key).clear()
        if cell.kind == "eval" and cell.threat is not None:
            ShardBox(store, cell.key).clear()
    note = attempt.note
    if outcome.status == "conflict":
        flips = f"{outcome.flipped} outcomes differ" if isinstance(cell, EvalCell) else "the weights differ"
        note = f"nondeterministic: cell {task.key[:12]} has another result in the store, {flips}; both are kept"
    status: CellStatus = "ok" if attempt.failure is None else "failed"
    return CellSummary(task.key, status, record.timing.wall_s, headline(record), note)


def _record(cell: TrainCell | EvalCell, attempt: _Attempt, task: CellTask, clock: _Clock) -> ResultRecord:
    return ResultRecord(
        status="ok" if attempt.failure is None else "failed",
        cell_key=cell.key,
        cell=cell,
        evaluation=attempt.evaluation,
        training=attempt.training,
        failure=attempt.failure,
        result_digest=result_digest(cell.key, attempt.evaluation, attempt.training),
        provenance=describe_provenance(_describe_device(task.device), task.threads),
        timing=clock.timing(),
    )


def headline(record: ResultRecord) -> str:
    """The main number of a record, or its error, in a few words."""
    if record.failure is not None:
        return f"{record.failure.type}: {record.failure.message}"
    if record.training is not None:
        last = record.training.history[-1] if record.training.history else {}
        value = last.get("validation_accuracy")
        return f"validation accuracy {100 * value:.1f} %" if value is not None else "trained"
    if record.evaluation is not None and record.evaluation.metrics:
        main = record.evaluation.metrics[0]
        return f"{main.name.replace('_', ' ')} {100 * main.value:.1f} % (n={main.n})"
    return record.status


_CLOCK = "clock.json"


class _Saved(Frozen):
    """What the clock leaves for the next attempt."""

    wall_s: NonNegativeFloat
    """Seconds of all attempts so far."""


class _Clock:
    """Wall time of a cell over all its attempts; the time of killed ones is known to the last report.

    Raises:
        CorruptRecordError: what an earlier attempt left cannot be read.
    """

    def __init__(self, store: Store, key: str) -> None:
        self._scratch = store.scratch(key)
        saved = self._scratch.get_json(_CLOCK)
        try:
            self._before = _Saved.model_validate(saved).wall_s if saved is not None else 0.0
        except ValidationError:
            raise self._scratch.not_understood(_CLOCK) from None
        self._start = self._saved = time.monotonic()
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")

    def watching(self, progress: Progress) -> Progress:
        """A progress function that also saves the time spent so far, every few seconds."""

        def report(fraction: float, what: str) -> None:
            if time.monotonic() - self._saved > 5.0:
                self._saved = time.monotonic()
                self._scratch.put_json(_CLOCK, _Saved(wall_s=self.elapsed()).model_dump())
            progress(fraction, what)

        return report

    def add(self, seconds: float) -> None:
        """Count what others have spent on the cell."""
        self._before += seconds

    def elapsed(self) -> float:
        """Seconds so far."""
        return self._before + time.monotonic() - self._start

    def timing(self) -> Timing:
        """Timing of the finished cell."""
        scale = 1024.0 if sys.platform != "darwin" else 1024.0**2
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
        return Timing(started_at=self._started_at, wall_s=round(self.elapsed(), 3), peak_memory_mb=round(peak, 1))


def _describe_device(device: str) -> str:
    if device.startswith("cuda") and torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name(torch.device(device))}"
    return device
