"""One process among several that share a cell: what it is told, does and tells.

It is started by `ranks.run_ranks`. Its standard input is one line of JSON and then stays open; when it is closed, the
process that started this one is gone, and so is this one, at once. Its standard output is a line of JSON for each thing
it tells; what anybody prints meanwhile goes to the standard error stream. The work itself is named and not imported, so
that all this holds while torch is still being loaded.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from typing import BinaryIO

from pydantic import TypeAdapter

from robusteval.execution.events import CellTask
from robusteval.schema.records import TrainingResult
from robusteval.schema.registry import load_target
from robusteval.schema.types import Fraction01, Frozen, NonNegativeInt, PositiveInt

_TASK = TypeAdapter(CellTask)
_WORK = "robusteval.execution.rank_work:work"
_EVERY_S = 0.2
"""Seconds between two reports of progress."""


class RankOrder(Frozen):
    """What a process is to do."""

    task: str
    """The `CellTask` as JSON, with the device and the threads of this process."""
    store_uri: str
    """Where results go."""
    index: NonNegativeInt
    """Number of this process."""
    count: PositiveInt
    """Number of processes."""
    meeting: str
    """File through which they find each other; absent at first."""


class RankFailure(Frozen):
    """An exception in a process."""

    type: str
    """Its class."""
    message: str
    """Its text."""
    traceback: str
    """Full traceback."""


class RankNews(Frozen):
    """One thing that a process tells."""

    at: float
    """Seconds since 1970: of two failures the first one is the cause."""
    fraction: Fraction01 | None = None
    """Finished fraction, for reports of progress."""
    what: str = ""
    """What runs now."""
    done: bool = False
    """Whether the process has ended well."""
    training: TrainingResult | None = None
    """What a training found."""
    failure: RankFailure | None = None
    """Why the process cannot go on."""


def encode_task(task: CellTask) -> str:
    """A task as JSON."""
    return _TASK.dump_json(task).decode()


def decode_task(text: str) -> CellTask:
    """Inverse of `encode_task`.

    Raises:
        ValidationError: the text is no task.
    """
    return _TASK.validate_json(text)


class _Speaker:
    """Tells the process that started this one."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._last = 0.0

    def progress(self, fraction: float, what: str) -> None:
        if time.monotonic() - self._last > _EVERY_S:
            self._last = time.monotonic()
            self.tell(RankNews(at=time.time(), fraction=min(max(fraction, 0.0), 1.0), what=what))

    def tell(self, news: RankNews) -> None:
        try:
            self._stream.write(news.model_dump_json().encode() + b"\n")
            self._stream.flush()
        except OSError:
            os._exit(1)


def main() -> None:
    """Do what the standard input says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    speaker = _Speaker(_private_output())
    order = RankOrder.model_validate_json(sys.stdin.buffer.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        speaker.tell(RankNews(at=time.time(), done=True, training=load_target(_WORK)(order, speaker.progress)))
    except Exception as error:  # noqa: BLE001 - told to the process that stores it, with its traceback
        text = traceback.format_exc()
        failure = RankFailure(type=type(error).__name__, message=str(error) or repr(error), traceback=text)
        speaker.tell(RankNews(at=time.time(), failure=failure))
        # Others may wait in vain for this process inside a library that does not let go at exit.
        os._exit(1)


def _private_output() -> BinaryIO:
    """The standard output for messages alone; what is printed from now on goes to the standard error stream."""
    sys.stdout.flush()
    private = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return private


def _die_with_parent() -> None:
    # Below Python's buffer, whose lock a thread that waits would still hold when the interpreter ends.
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os._exit(1)


if __name__ == "__main__":
    main()
