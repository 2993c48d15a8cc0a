"""Several processes of this machine that share one cell, each with a device of its own.

Nobody outside sees them: the executor has handed out one cell, which takes a lease, has a record and fails as one. The
first process that fails ends all of them, and its traceback is the cell's. Processes are started by name and not
forked, because a library that has touched an accelerator does not survive that, and not by `multiprocessing`, whose
workers may have no children.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from robusteval.execution.events import CellTask
from robusteval.execution.fan_out import shard_tasks, why_whole
from robusteval.execution.rank import RankFailure, RankNews, RankOrder, encode_task
from robusteval.methods import METHODS
from robusteval.schema import errors
from robusteval.schema.cells import EvalCell, TrainCell
from robusteval.schema.errors import BusyError, CellError, UnreachableError
from robusteval.schema.records import TrainingResult
from robusteval.schema.registry import load_target
from robusteval.schema.types import Progress

_MAIN = "from robusteval.execution.rank import main; main()"
_GRACE_S = 2.0
"""Seconds in which a process that was killed may be noticed after the others have lost it."""


class RankError(CellError):
    """A process that shares a cell has failed; its own traceback is the cause."""


class _Remote(Exception):  # noqa: N818 - shown as the traceback of another process
    """The traceback of another process, as a text."""

    def __init__(self, text: str) -> None:
        super().__init__(f'\n"""\n{text}"""')


def run_ranks(tasks: Sequence[CellTask], store_uri: str, progress: Progress) -> list[TrainingResult | None]:
    """Run one process for each task until all have ended well, and return what they found.

    Args:
        tasks: what each process does, with its own device and threads.
        store_uri: where results go.
        progress: told the mean finished fraction, and what the first process is at.

    Raises:
        RankError: a process has failed or died. None of them is left.
        UnreachableError: a process cannot reach the store.
    """
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        orders = [
            RankOrder(
                task=encode_task(task),
                store_uri=store_uri,
                index=index,
                count=len(tasks),
                meeting=str(Path(folder) / "meeting"),
            )
            for index, task in enumerate(tasks)
        ]
        with _started(orders) as processes:
            return _Watch(processes, progress).wait()


def why_one_process(cell: TrainCell | EvalCell) -> str | None:
    """Why several processes cannot share a cell; None if they can."""
    if isinstance(cell, EvalCell):
        return why_whole(cell)
    if METHODS.load(cell.method.name).divides:
        return None
    return f"a step of method {cell.method.name!r} cannot be divided among processes"


def train_with_ranks(task: CellTask, store_uri: str, progress: Progress) -> TrainingResult:
    """Train the model of a train cell in `task.ranks` processes.

    Raises:
        RankError: a process has failed, or they ended with different weights.
    """
    found = [result for result in run_ranks(split_over_devices(task), store_uri, progress) if result is not None]
    if len({result.weights for result in found}) != 1 or len(found) != task.ranks:
        raise RankError(f"the {task.ranks} processes ended with different weights; train in one")
    return found[0]


def measure_with_ranks(task: CellTask, store_uri: str, progress: Progress) -> int:
    """Measure the shares of an eval cell in at most `task.ranks` processes; returns how many shares there are.

    Raises:
        RankError: a process has failed.
    """
    shares = shard_tasks(task, task.ranks)
    places = split_over_devices(replace(task, ranks=len(shares)))
    pairs = zip(shares, places, strict=True)
    run_ranks([replace(one, device=place.device, threads=place.threads) for one, place in pairs], store_uri, progress)
    return len(shares)


def split_over_devices(task: CellTask) -> list[CellTask]:
    """The task of each of `task.ranks` processes: a device each, and an equal part of the threads.

    Raises:
        UsageError: there are not so many devices.
    """
    devices = load_target("robusteval.execution.device:rank_devices")(task.device, task.ranks)
    return [replace(task, device=device, threads=max(1, task.threads // task.ranks)) for device in devices]


@contextmanager
def _started(orders: Sequence[RankOrder]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The running processes; on exit, however it comes, all of them have ended."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for order in orders:
            process = subprocess.Popen(  # noqa: S603 - this interpreter with a constant
                [sys.executable, "-c", _MAIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()
            )
            processes.append(process)
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it died already, which is noticed when it is listened to
                process.stdin.write(order.model_dump_json().encode() + b"\n")
                process.stdin.flush()
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _environment() -> dict[str, str]:
    """The environment of this process, its import path, and the loopback device for talk on one machine."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    own = {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    return own | os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}


class _Watch:
    """Listens to processes until all have ended well or one has not."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]], progress: Progress) -> None:
        self._processes, self._progress = processes, progress
        self._news: queue.Queue[tuple[int, RankNews | None]] = queue.Queue()
        self._fractions = [0.0] * len(processes)
        self._found: dict[int, RankNews] = {}
        for index, process in enumerate(processes):
            threading.Thread(target=self._listen, args=(index, process), daemon=True).start()

    def wait(self) -> list[TrainingResult | None]:
        while len(self._found) < len(self._processes):
            index, news = self._next(None)
            if news is None or news.failure is not None:
                raise self._error(index, news)
            if news.done:
                self._found[index] = news
            elif news.fraction is not None:
                self._fractions[index] = news.fraction
                self._progress(sum(self._fractions) / len(self._fractions), news.what)
        return [self._found[index].training for index in range(len(self._processes))]

    def _next(self, until: float | None) -> tuple[int, RankNews | None]:
        """The next news, or None in its place where a process has ended; raises `queue.Empty` after `until`."""
        while True:
            left = 1.0 if until is None else until - time.monotonic()
            with contextlib.suppress(queue.Empty):
                index, news = self._news.get(timeout=max(0.0, left))
                if news is not None or index not in self._found:
                    return index, news
            if until is not None and left <= 0:
                raise queue.Empty

    def _listen(self, index: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with contextlib.suppress(OSError, ValueError):  # closed, because the run has ended
            for line in process.stdout:
                with contextlib.suppress(ValidationError):
                    self._news.put((index, RankNews.model_validate_json(line)))
        self._news.put((index, None))

    def _error(self, index: int, news: RankNews | None) -> Exception:
        """The first thing that went wrong: those who lose a partner fail after it."""
        wrong = {index: news}
        until = time.monotonic() + _GRACE_S
        with contextlib.suppress(queue.Empty):
            while len(wrong) < len(self._processes):
                later, told = self._next(until)
                if told is None or told.failure is not None:
                    wrong.setdefault(later, told)
        for number, told in wrong.items():
            if told is None:
                return self._died(number)
        number, first = min(wrong.items(), key=lambda item: item[1].at if item[1] is not None else 0.0)
        assert first is not None and first.failure is not None
        return self._failed(number, first.failure)

    def _died(self, index: int) -> RankError:
        code = self._processes[index].wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = "; it may have run out of memory" if code == -signal.SIGKILL else ""
        return RankError(f"process {index + 1} of {len(self._processes)} ended with {how}{hint}")

    def _failed(self, index: int, failure: RankFailure) -> Exception:
        kind = getattr(errors, failure.type, None)
        if kind in (UnreachableError, BusyError):
            error: Exception = kind(failure.message)
            return error
        text = f"process {index + 1} of {len(self._processes)}: {failure.type}: {failure.message}"
        found = RankError(text)
        found.__cause__ = _Remote(failure.traceback)
        return found
