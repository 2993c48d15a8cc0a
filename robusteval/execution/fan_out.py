"""Long evaluations divided into shares, which any executor runs as tasks of their own.

The runner sees one cell as before: its shares go through the same executor, at most as many at a time as it has room
for, and when all are in the store, one more task puts them together under the cell's key. A share has a lock, a lease
and scratch space of its own, so that a killed run goes on with the shares that are missing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pydantic import TypeAdapter

from robusteval.execution.events import CellSummary, CellTask
from robusteval.execution.executors import Executor, ExecutorSetup
from robusteval.schema.cells import AnyCell, EvalCell, TrainCell
from robusteval.schema.digest import json_digest
from robusteval.schema.errors import UsageError
from robusteval.schema.registry import load_target
from robusteval.schema.shards import shards_of

_CELL: TypeAdapter[TrainCell | EvalCell] = TypeAdapter(AnyCell)


def why_whole(cell: TrainCell | EvalCell) -> str | None:
    """Why a cell is not divided; None if it can be."""
    if isinstance(cell, TrainCell):
        return "a training is one sequence of steps; give it several devices instead (resources: {gpus: k})"
    reason: str | None = load_target("robusteval.evaluators.sharding:whole_because")(cell.evaluator, cell.threat)
    return reason


def shard_tasks(task: CellTask, count: int) -> tuple[CellTask, ...]:
    """The tasks that measure the shares of a cell; `merge_task` puts them together once all of them are done.

    Args:
        task: an eval cell.
        count: shares wanted; never more than there are examples.

    Raises:
        UsageError: the cell is not divided, with the reason.
    """
    cell = _CELL.validate_json(task.cell)
    reason = why_whole(cell)
    if reason is not None:
        raise UsageError(f"cell {task.key[:12]} is not divided: {reason}")
    return tuple(
        replace(task, key=json_digest([task.key, str(shard)]), shard=shard) for shard in shards_of(cell.data.n, count)
    )


def merge_task(task: CellTask, count: int) -> CellTask:
    """The task that puts `count` shares of a cell together, once they are in the store; it makes no pass."""
    return replace(task, merges=count)


@dataclass
class _Divided:
    """A cell whose shares are under way."""

    task: CellTask
    open: set[str]
    count: int
    started: float
    fractions: dict[str, float] = field(default_factory=dict)
    busy: CellSummary | None = None
    failed: CellSummary | None = None


class FanOut:
    """An executor whose long evaluations are divided; everything else it runs as it is.

    Args:
        make: builds the executor that runs the tasks.
        setup: what the run needs; its number of cells counts shares.
        shards: shares of each evaluation that can be divided.
    """

    def __init__(self, make: Callable[[ExecutorSetup], Executor], setup: ExecutorSetup, shards: int) -> None:
        self._sink, self._shards = setup.on_progress, shards
        self._divided: dict[str, _Divided] = {}
        self._owner: dict[str, str] = {}
        self._queue: deque[CellTask] = deque()
        self._running = 0
        self._inner = make(replace(setup, on_progress=self._progressed))

    @property
    def slots(self) -> int:
        """See `Executor.slots`; in cells, each of which may fill several places."""
        return self._inner.slots

    @property
    def device(self) -> str:
        """See `Executor.device`."""
        return self._inner.device

    def submit(self, task: CellTask) -> None:
        """See `Executor.submit`."""
        shares = shard_tasks(task, self._shards) if why_whole(_CELL.validate_json(task.cell)) is None else ()
        if len(shares) < 2:
            self._queue.append(task)
        else:
            keys = {share.key for share in shares}
            self._divided[task.key] = _Divided(task, keys, len(shares), time.monotonic())
            self._owner |= dict.fromkeys(keys, task.key)
            self._queue.extend(shares)
        self._feed()

    def wait(self) -> CellSummary:
        """See `Executor.wait`."""
        while True:
            self._feed()
            summary = self._inner.wait()
            self._running -= 1
            ended = self._hear(summary)
            if ended is not None:
                return ended

    def stop(self) -> None:
        """See `Executor.stop`."""
        self._queue.clear()
        self._inner.stop()

    def _feed(self) -> None:
        while self._queue and self._running < self._inner.slots:
            self._inner.submit(self._queue.popleft())
            self._running += 1

    def _hear(self, summary: CellSummary) -> CellSummary | None:
        """What a summary means for the runner: nothing, while a cell has shares to come."""
        if summary.key not in self._owner:
            divided = self._divided.pop(summary.key, None)
            return summary if divided is None else replace(summary, wall_s=time.monotonic() - divided.started)
        divided = self._divided[self._owner.pop(summary.key)]
        divided.open.discard(summary.key)
        divided.fractions[summary.key] = 1.0
        if summary.status == "failed":
            divided.failed = divided.failed or summary
            self._withdraw(divided)
        elif summary.status == "busy":
            divided.busy = summary
        if divided.open:
            return None
        spoiled = divided.failed or divided.busy
        if spoiled is None:
            self._queue.appendleft(merge_task(divided.task, divided.count))
            return None
        del self._divided[divided.task.key]
        return replace(spoiled, key=divided.task.key, wall_s=time.monotonic() - divided.started)

    def _withdraw(self, divided: _Divided) -> None:
        """Forget the shares of a failed cell that have not begun."""
        for task in [task for task in self._queue if task.key in divided.open]:
            self._queue.remove(task)
            divided.open.discard(task.key)
            del self._owner[task.key]

    def _progressed(self, key: str, fraction: float, what: str) -> None:
        owner = self._owner.get(key)
        if owner is None:
            self._sink(key, fraction, what)
            return
        divided = self._divided[owner]
        divided.fractions[key] = fraction
        self._sink(owner, sum(divided.fractions.values()) / divided.count, what)
