"""Where cells run: in this process, or in spawned worker processes.

The seam is one function over plain values, `run_cell(task, store_uri, progress)`; results go into the store from the
worker, and only a summary comes back. Threads are set from the task in every executor, because their number can change
float sums. Executors that leave this machine, and those of plug-ins (entry points of the group
`robusteval.executors`), are built from an `ExecutorSetup` and obey the same protocol.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Protocol

from robusteval.execution.events import CellSummary, CellTask
from robusteval.schema.cells import DataSlice
from robusteval.schema.errors import UsageError
from robusteval.schema.params import checked_params
from robusteval.schema.registry import load_target
from robusteval.schema.types import Frozen, Progress, Resources

RUN_CELL = "robusteval.execution.cell:run_cell"
"""The worker's entry, named and not imported: it brings torch, which planning and reporting never load."""

_PATIENCE_S = 1.0
"""Seconds that workers have to end by themselves when a run stops."""

ProgressSink = Callable[[str, float, str], None]
"""Called with a cell's key, its finished fraction and what runs now."""


@dataclass(frozen=True)
class ExecutorSetup:
    """What an executor is told before its first cell.

    Attributes:
        store_uri: where results go.
        on_progress: told about running cells.
        cells: how many cells there are to run.
        resources: what one cell may use.
        device: what the user asked for; `auto`, `cpu`, `cuda`, `cuda:1`.
        jobs: cells at a time, if the user said it.
        address: of the cluster, if the user gave one.
        options: further settings, by name, as the user wrote them.
        data: a slice of every dataset that a cell needs.
    """

    store_uri: str
    on_progress: ProgressSink
    cells: int
    resources: Resources
    device: str = "auto"
    jobs: int | None = None
    address: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    data: tuple[DataSlice, ...] = ()


class Executor(Protocol):
    """Runs cells, at most `slots` at a time."""

    @property
    def slots(self) -> int:
        """Cells that the caller may have in flight; it may change while a run goes on."""

    @property
    def device(self) -> str:
        """Device on which cells compute where they run; `cpu`, `cuda`, `cuda:1`."""

    def submit(self, task: CellTask) -> None:
        """Take a cell; the caller keeps at most `slots` in flight."""

    def wait(self) -> CellSummary:
        """Block until some submitted cell has ended."""

    def stop(self) -> None:
        """End everything at once; the store stays intact, running cells keep their scratch."""


class _NoOptions(Frozen):
    """The executors of this machine have no settings of their own."""


def _on_this_machine(name: str, setup: ExecutorSetup) -> str:
    """Check what is only for clusters, and say which device of this machine is used.

    Raises:
        UsageError: there is something, or the device is not there.
    """
    if setup.address is not None:
        raise UsageError(f"--address {setup.address!r} is for executors that join a cluster, such as ray; not {name!r}")
    checked_params(f"executor {name!r}", _NoOptions, setup.options)
    device: str = load_target("robusteval.execution.device:resolve_device")(setup.device)
    return device


def local_executor(setup: ExecutorSetup) -> str:
    """Name of the executor of this machine that suits a run: processes where cells can run side by side."""
    return "processes" if _local_slots(setup, _on_this_machine("auto", setup)) > 1 else "serial"


def _local_slots(setup: ExecutorSetup, device: str) -> int:
    room = max(1, cpu_count() // setup.resources.cpus)
    return min(setup.jobs or (room if device == "cpu" else 1), setup.cells)


def ranks_of(resources: Resources, device: str) -> int:
    """Processes that share one cell: one for each whole accelerator, or what the suite says."""
    if resources.ranks is not None:
        return resources.ranks
    return max(1, int(resources.gpus)) if device.startswith("cuda") else 1


def cpu_count() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


class Serial:
    """One cell after the other, in this process.

    Args:
        setup: what the run needs.

    Raises:
        UsageError: an option that this executor does not have, or a device that is not there.
    """

    slots = 1

    def __init__(self, setup: ExecutorSetup) -> None:
        self.device = _on_this_machine("serial", setup)
        self._setup = setup
        self._queue: deque[CellTask] = deque()

    def submit(self, task: CellTask) -> None:
        """Queue a cell; it runs inside `wait`."""
        self._queue.append(task)

    def wait(self) -> CellSummary:
        """Run the next queued cell to its end."""
        task = self._queue.popleft()
        report: Progress = lambda fraction, what: self._setup.on_progress(task.key, fraction, what)  # noqa: E731
        summary: CellSummary = load_target(RUN_CELL)(task, self._setup.store_uri, report)
        return summary

    def stop(self) -> None:
        """Forget what is queued."""
        self._queue.clear()


class Processes:
    """Spawned worker processes, each with one cell at a time; a worker that dies fails its cell only.

    Args:
        setup: what the run needs.

    Raises:
        UsageError: an option that this executor does not have, or a device that is not there.
    """

    def __init__(self, setup: ExecutorSetup) -> None:
        self.device = _on_this_machine("processes", setup)
        self.slots = _local_slots(setup, self.device)
        self._setup = setup
        self._context = multiprocessing.get_context("spawn")
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, _Worker] = {}

    def submit(self, task: CellTask) -> None:
        """Hand a cell to an idle worker, or to a new one."""
        worker = self._idle.pop() if self._idle else _Worker(self._context, self._setup.store_uri)
        worker.give(task)
        self._busy[worker.connection] = worker

    def wait(self) -> CellSummary:
        """Block until some worker reports the end of its cell, or dies."""
        while True:
            for ready in wait(list(self._busy)):
                assert isinstance(ready, Connection)
                worker = self._busy[ready]
                try:
                    message = ready.recv()
                except (EOFError, OSError):
                    del self._busy[ready]
                    return worker.obituary()
                if isinstance(message, CellSummary):
                    del self._busy[ready]
                    self._idle.append(worker)
                    return message
                self._setup.on_progress(*message)

    def stop(self) -> None:
        """End all workers, those that do not obey at once by force; the store has no part of a file either way."""
        workers = [*self._idle, *self._busy.values()]
        for worker in workers:
            worker.ask_to_end()
        deadline = time.monotonic() + _PATIENCE_S
        for worker in workers:
            worker.end(deadline)
        self._idle.clear()
        self._busy.clear()


class _Worker:
    """One spawned process and the pipe to it."""

    def __init__(self, context: multiprocessing.context.SpawnContext, store_uri: str) -> None:
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, store_uri, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()
        self._task: CellTask | None = None
        self._since = 0.0

    def give(self, task: CellTask) -> None:
        self._task, self._since = task, time.monotonic()
        self.connection.send(task)

    def obituary(self) -> CellSummary:
        """Summary of the cell that this worker died with."""
        self._process.join(timeout=10)
        code = self._process.exitcode
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        hint = "; it may have run out of memory" if code == -signal.SIGKILL else ""
        assert self._task is not None
        elapsed = time.monotonic() - self._since
        return CellSummary(self._task.key, "failed", elapsed, f"WorkerDied: the worker ended with {how}{hint}")

    def ask_to_end(self) -> None:
        self._process.terminate()

    def end(self, deadline: float) -> None:
        self._process.join(timeout=max(0.0, deadline - time.monotonic()))
        self._process.kill()
        self._process.join(timeout=10)
        self.connection.close()


def _work(connection: Connection, store_uri: str, parent: int) -> None:
    """Main loop of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    run_cell = load_target(RUN_CELL)
    while True:
        try:
            task: CellTask = connection.recv()
        except (EOFError, OSError):
            return
        last = 0.0

        def report(fraction: float, what: str, key: str = task.key) -> None:
            nonlocal last
            if time.monotonic() - last > 0.2:
                last = time.monotonic()
                _tell(connection, (key, fraction, what))

        _tell(connection, run_cell(task, store_uri, report))


def _leave(*_: object) -> None:
    """End the process through its `finally` blocks, which remove temporary files."""
    raise SystemExit(1)


def _tell(connection: Connection, message: object) -> None:
    """Send to the parent; if it is gone, so is this process, at once and without a word.

    An exception instead would look like a failure of the cell and be stored as one.
    """
    try:
        connection.send(message)
    except OSError:
        os._exit(1)


def _die_with(parent: int) -> None:
    """End this process when the one that started it is gone, however it went."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
