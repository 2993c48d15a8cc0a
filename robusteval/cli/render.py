"""How things look in a terminal; the only module that imports rich.

Results go to standard output, progress to standard error. Progress is live only where somebody can see it: on a
terminal; anywhere else each finished cell is one line. `NO_COLOR` is honoured by rich itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from robusteval.execution.events import CellSummary, Listener

_FILE_WIDTH = 400
"""Width of tables that go into a file or a pipe: wide enough that nothing is cut."""
_WRAPPED_WIDTH = 20
"""Narrowest width to which a last column of text is wrapped."""


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = (), title: str = ""
) -> None:
    """Write a table and the sentences under it to standard output; columns of numbers are aligned right."""
    console = _console(sys.stdout)
    if title:
        console.print(Text(title, style="bold"))
    if rows:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for index, name in enumerate(header):
            numeric = all(_is_number(row[index]) for row in rows)
            last = index == len(header) - 1
            table.add_column(Text(name), justify="right" if numeric else "left", no_wrap=not last)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        wide = _console(sys.stdout, _needed_width(header, rows))
        with wide.capture() as captured:
            wide.print(table)
        lines = captured.get().splitlines()
        print("\n".join(lines if wide.is_terminal else (line.rstrip() for line in lines)))
    for note in notes:
        console.print(Text(note), soft_wrap=not console.is_terminal)


def _needed_width(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Columns of a terminal below which numbers would be cut; only the last column may be wrapped."""
    widths = [max(len(line[index]) for line in (header, *rows)) for index in range(len(header))]
    return sum(widths[:-1]) + 3 * (len(widths) - 1) + min(widths[-1], _WRAPPED_WIDTH)


def print_facts(facts: Sequence[tuple[str, str]], title: str = "") -> None:
    """Write names and values to standard output, one pair a line."""
    console = _console(sys.stdout)
    if title:
        console.print(Text(title, style="bold"))
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        lines = value.splitlines() or [""]
        console.print(Text(f"  {name:<{width}}  {lines[0]}"), soft_wrap=True)
        for line in lines[1:]:
            console.print(Text(f"  {'':<{width}}  {line.strip()}"), soft_wrap=True)


def count(number: float) -> str:
    """A number of passes with its unit prefix, such as `3.2 M`."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.1f} {unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 60:
        return f"{seconds} s" if isinstance(seconds, int) else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


@contextmanager
def listener(*, quiet: bool, verbose: bool) -> Iterator[Listener]:
    """Whatever shows a run best here: a live display on a terminal, lines elsewhere, nothing if `quiet`."""
    console = _console(sys.stderr)
    if quiet:
        from robusteval.execution.events import SilentListener

        yield SilentListener()
    elif console.is_terminal:
        with _progress(console) as progress:
            yield LiveListener(progress)
    else:
        yield LineListener(verbose=verbose)


_SILENCE_S = 60.0
"""Seconds after which a run without a finished cell says what it is doing."""


class LineListener:
    """One line on standard error for each finished cell, with how far the run is and how long it will take.

    If no cell ends for a minute, a line says what runs and how far it is.

    Args:
        verbose: also say when a cell begins.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._finished: list[str] = []
        self._running: dict[str, tuple[str, str]] = {}
        self._said_at = float("-inf")

    def started(self, key: str, title: str) -> None:
        """A cell begins."""
        self._running[key] = (title, "")
        if self._verbose:
            _say(f"started {title} [{key[:12]}]")

    def progressed(self, key: str, fraction: float, what: str) -> None:
        """A cell is `fraction` done."""
        title, _ = self._running.get(key, ("", ""))
        self._running[key] = (title, f" ({what}, {100 * fraction:.0f} %)")

    def finished(self, summary: CellSummary, title: str) -> None:
        """A cell has ended."""
        self._running.pop(summary.key, None)
        self._finished.append(_outcome(summary, title))

    def tick(self, done: int, total: int, eta_s: float | None) -> None:
        """The overall state."""
        left = f"; about {duration(max(1, round(eta_s)))} left" if eta_s and done < total else ""
        if not self._finished and done < total and time.monotonic() - self._said_at > _SILENCE_S:
            running = "; ".join(title + note for title, note in self._running.values())
            _say(f"[{done}/{total}] {running or 'cells'}{left}")
            self._said_at = time.monotonic()
        for line in self._finished:
            _say(f"[{done}/{total}] {line}{left}")
            self._said_at = time.monotonic()
        self._finished.clear()


class LiveListener:
    """An overall bar with the time left, and a line for each cell that runs now.

    Args:
        progress: the display, on standard error.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._overall: TaskID = progress.add_task("all cells", total=None, note="")
        self._running: dict[str, TaskID] = {}
        self._fractions: dict[str, float] = {}
        self._done, self._total = 0, 0
        self._end: float | None = None

    def started(self, key: str, title: str) -> None:
        """A cell begins."""
        self._running[key] = self._progress.add_task(escape(title), total=1.0, note="")

    def progressed(self, key: str, fraction: float, what: str) -> None:
        """A cell is `fraction` done."""
        if key in self._running:
            self._progress.update(self._running[key], completed=fraction, note=escape(what))
            self._fractions[key] = fraction
            self._show_overall()

    def finished(self, summary: CellSummary, title: str) -> None:
        """A cell has ended."""
        task = self._running.pop(summary.key, None)
        self._fractions.pop(summary.key, None)
        if task is not None:
            self._progress.remove_task(task)
        style = "red" if summary.status == "failed" else ""
        self._progress.console.print(Text(_outcome(summary, title), style=style))

    def tick(self, done: int, total: int, eta_s: float | None) -> None:
        """The overall state."""
        self._done, self._total = done, total
        self._end = time.monotonic() + eta_s if eta_s else None
        self._show_overall()

    def _show_overall(self) -> None:
        left = f"{self._total - self._done} left"
        if self._end is not None:
            left += f", about {duration(max(1, round(self._end - time.monotonic())))}"
        completed = self._done + sum(self._fractions.values())
        self._progress.update(self._overall, completed=completed, total=self._total, note=left)


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
    )


def _outcome(summary: CellSummary, title: str) -> str:
    words = {"ok": "", "failed": "FAILED ", "cached": "was there ", "busy": "busy "}
    return f"{title}: {words[summary.status]}{summary.headline} ({duration(summary.wall_s)})"


def _say(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr, flush=True)


def _console(stream: TextIO, needed: int = 0) -> Console:
    """A console of the terminal's width, or of what is needed if that is more; files are as wide as it takes."""
    console = Console(file=stream, highlight=False)
    width = max(console.width, needed) if console.is_terminal else _FILE_WIDTH
    return Console(file=stream, highlight=False, width=width)


def _is_number(text: str) -> bool:
    return not text or text[0].isdigit() or text == "-" or (text[0] in "+-" and text[1:2].isdigit())
