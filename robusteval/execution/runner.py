"""Run a plan: hand cells to an executor as soon as what they need is in the store."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from robusteval.execution import EXECUTORS
from robusteval.execution.estimate import Estimator
from robusteval.execution.events import CellSummary, CellTask, Listener, RunSummary, SilentListener
from robusteval.execution.executors import Executor, ExecutorSetup, local_executor, ranks_of
from robusteval.execution.fan_out import FanOut
from robusteval.execution.schedule import Schedule
from robusteval.store.store import Store

if TYPE_CHECKING:
    from robusteval.planning.plan import Plan, PlannedCell
    from robusteval.schema.cells import DataSlice

_TICK_S = 2.0
"""Seconds between two estimates of the remaining time while cells run."""


@dataclass(frozen=True)
class RunOptions:
    """How to run, not what.

    Attributes:
        executor: registered name; `auto` takes processes where several cells can run side by side on a CPU.
        jobs: cells at a time; by default as many as the machine or the cluster has room for.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        resume: which finished cells run again: `missing` none, `failed` the failed and damaged ones, `all` every one.
        fail_fast: start nothing more after the first failure.
        shards: shares that a long evaluation is divided into, each a task of its own; 1 for one piece.
        address: of the cluster, for executors that join one.
        executor_options: further settings of the executor, by name.
    """

    executor: str = "auto"
    jobs: int | None = None
    device: str = "auto"
    resume: str = "missing"
    fail_fast: bool = False
    shards: int = 1
    address: str | None = None
    executor_options: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Progress:
    """Mutable state of one run."""

    schedule: Schedule
    cached: int
    running: dict[str, PlannedCell] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    executed: int = 0
    found: int = 0
    notes: list[str] = field(default_factory=list)
    stopping: bool = False


def run_plan(plan: Plan, store: Store, options: RunOptions, listener: Listener | None = None) -> RunSummary:
    """Execute every cell of `plan` that is to run.

    A failing cell keeps only what depends on it from running. Ctrl-C ends the workers at once and returns a summary
    with `cancelled`; everything finished so far is in the store.

    Args:
        plan: cells with their states, from `planning.make_plan`.
        store: where results are and go.
        options: executor, device, resume policy.
        listener: told about everything that happens.
    """
    return _Runner(plan, store, options, listener or SilentListener()).run()


class _Runner:
    def __init__(self, plan: Plan, store: Store, options: RunOptions, listener: Listener) -> None:
        self.plan = plan
        self.store = store
        if options.executor != "auto":
            EXECUTORS.check(options.executor)
        self.options = options
        self.listener = listener
        again = options.resume == "all"
        cells = {cell.key: cell for cell in plan.cells}
        redo = {"pending", "running", "stale", "blocked"}
        redo |= {"failed", "corrupt"} if options.resume != "missing" else set()
        waiting = {key: cell for key, cell in cells.items() if again or cell.state in redo}
        done = {key for key, cell in cells.items() if cell.state == "done" and key not in waiting}
        self.estimator = Estimator(waiting.values())
        self.state = _Progress(
            schedule=Schedule(waiting, done, self.estimator.chain),
            cached=len(done),
            failed={key: cell.reason for key, cell in cells.items() if key not in waiting and cell.state != "done"},
        )
        self.again = again
        self.total = len(waiting)
        self.slots = 1
        self.last_tick = time.monotonic()
        self.cells = cells

    def run(self) -> RunSummary:
        start = time.monotonic()
        waiting = self.state.schedule.waiting
        cancelled = False
        if waiting:
            try:
                executor = self._make_executor()
            except KeyboardInterrupt:
                return RunSummary(done=0, cached=self.state.cached, wall_s=time.monotonic() - start, cancelled=True)
            try:
                self._set_damage_aside()
                self._loop(executor)
            except KeyboardInterrupt:
                cancelled = True
            finally:
                executor.stop()
                self.store.leases.clear_dead(self.state.running)
        return RunSummary(
            done=self.state.executed,
            cached=self.state.cached + self.state.found,
            failed={self.cells[key].title: reason for key, reason in self.state.failed.items()},
            blocked=[] if cancelled else [cell.title for cell in waiting.values()],
            notes=self.state.notes,
            wall_s=time.monotonic() - start,
            cancelled=cancelled,
        )

    def _set_damage_aside(self) -> None:
        for key, cell in self.state.schedule.waiting.items():
            if cell.state == "corrupt":
                self.store.set_aside(key)

    def _loop(self, executor: Executor) -> None:
        self._tick(executor.slots)
        while True:
            self._fill(executor)
            if self.state.running:
                self._finish(executor.wait())
                self._tick(executor.slots)
            elif self.state.schedule.resting and not self.state.stopping:
                time.sleep(0.3)
            else:
                return

    def _fill(self, executor: Executor) -> None:
        """Start what can start, as far as the executor has room."""
        while not self.state.stopping and len(self.state.running) < executor.slots:
            cell = self.state.schedule.take(time.monotonic())
            if cell is None:
                return
            self._start(cell, executor)

    def _start(self, cell: PlannedCell, executor: Executor) -> None:
        self.state.running[cell.key] = cell
        self.estimator.started(cell.key)
        self.listener.started(cell.key, cell.title)
        executor.submit(
            CellTask(
                key=cell.key,
                cell=cell.cell.model_dump_json(),
                device=executor.device,
                threads=self.plan.resources.cpus,
                again=self.again,
                ranks=ranks_of(self.plan.resources, executor.device),
            )
        )

    def _finish(self, summary: CellSummary) -> None:
        cell = self.state.running.pop(summary.key)
        if summary.status == "busy":
            self.state.schedule.rest(cell, until=time.monotonic() + 1.0)
            self.estimator.paused(summary.key)
            return
        self.estimator.finished(summary.key, summary.wall_s)
        if summary.status == "failed":
            self.state.failed[summary.key] = summary.headline
            self.state.stopping = self.options.fail_fast
        else:
            self.state.schedule.finished(summary.key)
            self.state.executed += summary.status == "ok"
            self.state.found += summary.status == "cached"
        if summary.note:
            self.state.notes.append(summary.note)
        self.listener.finished(summary, cell.title)

    def _tick(self, slots: int) -> None:
        self.slots = slots
        self.last_tick = time.monotonic()
        finished = self.total - len(self.state.schedule.waiting) - len(self.state.running)
        self.listener.tick(finished, self.total, self.estimator.eta(slots))

    def _progressed(self, key: str, fraction: float, what: str) -> None:
        self.estimator.progressed(key, fraction)
        self.listener.progressed(key, fraction, what)
        if time.monotonic() - self.last_tick > _TICK_S:
            self._tick(self.slots)

    def _make_executor(self) -> Executor:
        slices = {(data.dataset.model_dump_json(), data.revision): data for data in self._data()}
        setup = ExecutorSetup(
            store_uri=self.store.uri,
            on_progress=self._progressed,
            cells=self.total * max(1, self.options.shards),
            resources=self.plan.resources,
            device=self.options.device,
            jobs=self.options.jobs,
            address=self.options.address,
            options=self.options.executor_options,
            data=tuple(slices.values()),
        )
        name = local_executor(setup) if self.options.executor == "auto" else self.options.executor
        make = EXECUTORS.load(name)
        return make(setup) if self.options.shards <= 1 else FanOut(make, setup, self.options.shards)

    def _data(self) -> Iterable[DataSlice]:
        """The slices of all cells that are to run; many cells share one object."""
        cells = self.state.schedule.waiting.values()
        return {id(cell.cell.data): cell.cell.data for cell in cells}.values()
