"""Where cells run: in this process, or in spawned worker processes.

The seam is one function over plain values, `run_cell(task, store_uri, progress)`; results go into the store from the
worker, and only a summary comes back. Threads are set from the task in every executor, because their number can change
float sums.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Protocol

from robusteval.execution.events import CellSummary, CellTask
from robusteval.schema.registry import load_target
from robusteval.schema.types import Progress

RUN_CELL = "robusteval.execution.cell:run_cell"
"""The worker's entry, named and not imported: it brings torch, which planning and reporting never load."""

ProgressSink = Callable[[str, float, str], None]
"""Called with a cell's key, its finished fraction and what runs now."""


class Executor(Protocol):
    """Runs cells, at most `slots` at a time."""

    slots: int

    def submit(self, task: CellTask) -> None:
        """Take a cell; the caller keeps at most `slots` in flight."""

    def wait(self) -> CellSummary:
        """Block until some submitted cell has ended."""

    def stop(self) -> None:
        """End everything at once; the store stays intact, running cells keep their scratch."""


class Serial:
    """One cell after the other, in this process.

    Args:
        store_uri: where results go.
        on_progress: told about the running cell.
    """

    slots = 1

    def __init__(self, store_uri: str, on_progress: ProgressSink) -> None:
        self._store_uri = store_uri
        self._on_progress = on_progress
        self._queue: deque[CellTask] = deque()

    def submit(self, task: CellTask) -> None:
        """Queue a cell; it runs inside `wait`."""
        self._queue.append(task)

    def wait(self) -> CellSummary:
        """Run the next queued cell to its end."""
        task = self._queue.popleft()
        report: Progress = lambda fraction, what: self._on_progress(task.key, fraction, what)  # noqa: E731
        summary: CellSummary = load_target(RUN_CELL)(task, self._store_uri, report)
        return summary

    def stop(self) -> None:
        """Forget what is queued."""
        self._queue.clear()


class Processes:
    """Spawned worker processes, each with one cell at a time; a worker that dies fails its cell only.

    Args:
        store_uri: where results go.
        on_progress: told about running cells.
        jobs: number of workers.
    """

    def __init__(self, store_uri: str, on_progress: ProgressSink, jobs: int) -> None:
        self.slots = jobs
        self._store_uri = store_uri
        self._on_progress = on_progress
        self._context = multiprocessing.get_context("spawn")
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, _Worker] = {}

    def submit(self, task: CellTask) -> None:
        """Hand a cell to an idle worker, or to a new one."""
        worker = self._idle.pop() if self._idle else _Worker(self._context, self._store_uri)
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
                self._on_progress(*message)

    def stop(self) -> None:
        """Kill all workers; every write is atomic, so that nothing is left half done."""
        for worker in [*self._idle, *self._busy.values()]:
            worker.kill()
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

    def kill(self) -> None:
        self._process.kill()
        self._process.join(timeout=10)
        self.connection.close()


def _work(connection: Connection, store_uri: str, parent: int) -> None:
    """Main loop of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
