"""Run a plan: hand cells to an executor as soon as what they need is in the store."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from robusteval.execution.estimate import Estimator
from robusteval.execution.events import CellSummary, CellTask, Listener, RunSummary, SilentListener
from robusteval.execution.executors import Executor, Processes, Serial
from robusteval.schema.errors import UsageError, unknown_name
from robusteval.schema.registry import load_target
from robusteval.store.store import Store

if TYPE_CHECKING:
    from robusteval.planning.plan import Plan, PlannedCell

EXECUTORS = ("auto", "serial", "processes")
_TICK_S = 2.0
"""Seconds between two estimates of the remaining time while cells run."""


@dataclass(frozen=True)
class RunOptions:
    """How to run, not what.

    Attributes:
        executor: `auto` takes processes where several cells can run side by side on a CPU.
        jobs: cells at a time; by default as many as the CPU has room for.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        resume: which finished cells run again: `missing` none, `failed` the failed and damaged ones, `all` every one.
        fail_fast: start nothing more after the first failure.
    """

    executor: str = "auto"
    jobs: int | None = None
    device: str = "auto"
    resume: str = "missing"
    fail_fast: bool = False


@dataclass
class _Progress:
    """Mutable state of one run."""

    waiting: dict[str, PlannedCell]
    done: set[str]
    running: dict[str, PlannedCell] = field(default_factory=dict)
    not_before: dict[str, float] = field(default_factory=dict)
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
        if options.executor not in EXECUTORS:
            raise UsageError(unknown_name("executor", options.executor, EXECUTORS))
        self.options = options
        self.listener = listener
        self.device: str = load_target("robusteval.execution.device:resolve_device")(options.device)
        again = options.resume == "all"
        cells = {cell.key: cell for cell in plan.cells}
        redo = {"pending", "blocked"} | ({"failed", "corrupt"} if options.resume != "missing" else set())
        waiting = {key: cell for key, cell in cells.items() if again or cell.state in redo}
        self.state = _Progress(
            waiting=waiting,
            done={key for key, cell in cells.items() if cell.state == "done" and key not in waiting},
            failed={key: cell.reason for key, cell in cells.items() if key not in waiting and cell.state != "done"},
        )
        self.again = again
        self.total = len(waiting)
        self.slots = 1
        self.last_tick = time.monotonic()
        self.cells = cells
        self.estimator = Estimator(waiting.values())

    def run(self) -> RunSummary:
        start = time.monotonic()
        cached = len(self.state.done)
        for key, cell in self.state.waiting.items():
            if cell.state == "corrupt":
                self.store.set_aside(key)
        cancelled = False
        if self.state.waiting:
            executor = self._make_executor()
            try:
                self._loop(executor)
            except KeyboardInterrupt:
                cancelled = True
            finally:
                executor.stop()
        return RunSummary(
            done=self.state.executed,
            cached=cached + self.state.found,
            failed={self.cells[key].title: reason for key, reason in self.state.failed.items()},
            blocked=[] if cancelled else [cell.title for cell in self.state.waiting.values()],
            notes=self.state.notes,
            wall_s=time.monotonic() - start,
            cancelled=cancelled,
        )

    def _loop(self, executor: Executor) -> None:
        self.slots = executor.slots
        self._tick()
        while True:
            for cell in self._ready()[: executor.slots - len(self.state.running)]:
                self._start(cell, executor)
            if self.state.running:
                self._finish(executor.wait())
                self._tick()
            elif self._only_busy_left():
                time.sleep(0.3)
            else:
                return

    def _ready(self) -> list[PlannedCell]:
        """Cells that could start now, the ones with the longest chain of work behind them first."""
        if self.state.stopping:
            return []
        now = time.monotonic()
        ready = [
            cell
            for key, cell in self.state.waiting.items()
            if all(need in self.state.done for need in cell.needs) and self.state.not_before.get(key, 0.0) <= now
        ]
        return sorted(ready, key=lambda cell: -self.estimator.chain(cell.key))

    def _only_busy_left(self) -> bool:
        return not self.state.stopping and any(key in self.state.not_before for key in self.state.waiting)

    def _start(self, cell: PlannedCell, executor: Executor) -> None:
        del self.state.waiting[cell.key]
        self.state.running[cell.key] = cell
        self.estimator.started(cell.key)
        self.listener.started(cell.key, cell.title)
        executor.submit(
            CellTask(
                key=cell.key,
                cell=cell.cell.model_dump_json(),
                device=self.device,
                threads=self.plan.resources.cpus,
                again=self.again,
            )
        )

    def _finish(self, summary: CellSummary) -> None:
        cell = self.state.running.pop(summary.key)
        if summary.status == "busy":
            self.state.waiting[summary.key] = cell
            self.state.not_before[summary.key] = time.monotonic() + 1.0
            self.estimator.paused(summary.key)
            return
        self.estimator.finished(summary.key, summary.wall_s)
        self.state.not_before.pop(summary.key, None)
        if summary.status == "failed":
            self.state.failed[summary.key] = summary.headline
            self.state.stopping = self.options.fail_fast
        else:
            self.state.done.add(summary.key)
            self.state.executed += summary.status == "ok"
            self.state.found += summary.status == "cached"
        if summary.note:
            self.state.notes.append(summary.note)
        self.listener.finished(summary, cell.title)

    def _tick(self) -> None:
        self.last_tick = time.monotonic()
        finished = self.total - len(self.state.waiting) - len(self.state.running)
        self.listener.tick(finished, self.total, self.estimator.eta(self.slots))

    def _progressed(self, key: str, fraction: float, what: str) -> None:
        self.estimator.progressed(key, fraction)
        self.listener.progressed(key, fraction, what)
        if time.monotonic() - self.last_tick > _TICK_S:
            self._tick()

    def _make_executor(self) -> Executor:
        name = self.options.executor
        room = max(1, _cpu_count() // self.plan.resources.cpus)
        jobs = self.options.jobs or (room if self.device == "cpu" else 1)
        if name == "auto":
            name = "processes" if min(jobs, self.total) > 1 else "serial"
        if name == "serial":
            return Serial(self.store.uri, self._progressed)
        return Processes(self.store.uri, self._progressed, min(jobs, self.total))


def _cpu_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
