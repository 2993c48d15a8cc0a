"""How long the rest of a run will take, learned while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robusteval.schema.cells import TrainCell

if TYPE_CHECKING:
    from robusteval.planning.plan import PlannedCell

_SURVIVING = 0.25
"""Share of an attack's largest possible cost that is expected before any was seen: most examples break early."""


class Estimator:
    """Predicts from the mean time of finished cells of the same kind, else from passes at the rate seen so far.

    Cells that have not started are counted by kind, so that an answer costs as much as there are kinds and running
    cells, however many wait.

    Args:
        cells: the cells that are to run, each after those it needs; `kind` says which are alike, `passes` how much
            work each is.
    """

    def __init__(self, cells: Iterable[PlannedCell]) -> None:
        self._cells = {cell.key: cell for cell in cells}
        self._waiting: dict[str, _Waiting] = {}
        for cell in self._cells.values():
            self._waiting.setdefault(cell.kind, _Waiting(_share(cell))).add(cell.passes)
        self._started: set[str] = set()
        self._since: dict[str, float] = {}
        self._fraction: dict[str, float] = {}
        self._times: dict[str, list[float]] = {}
        self._spent_s = 0.0
        self._spent_passes = 0.0
        self._chains = _chains(self._cells)

    def chain(self, key: str) -> float:
        """Passes on the longest chain of cells that begins with this one."""
        return self._chains[key]

    def started(self, key: str) -> None:
        """A cell begins."""
        self._since[key] = time.monotonic()
        if key not in self._started:
            self._started.add(key)
            cell = self._cells[key]
            self._waiting[cell.kind].remove(cell.passes)

    def paused(self, key: str) -> None:
        """A cell goes back into the queue."""
        self._since.pop(key, None)

    def progressed(self, key: str, fraction: float) -> None:
        """A cell is `fraction` done."""
        self._fraction[key] = fraction

    def finished(self, key: str, wall_s: float) -> None:
        """A cell took `wall_s` seconds."""
        cell = self._cells[key]
        if key not in self._started:
            self._waiting[cell.kind].remove(cell.passes)
        self._started.discard(key)
        self._since.pop(key, None)
        self._fraction.pop(key, None)
        spent = self._times.setdefault(cell.kind, [0.0, 0])
        spent[0] += wall_s
        spent[1] += 1
        self._spent_s += wall_s
        self._spent_passes += cell.passes

    def eta(self, slots: int) -> float | None:
        """Seconds until everything is done with `slots` cells at a time; None while nothing is known."""
        total, longest, unknown = 0.0, 0.0, False
        for key in self._started:
            seconds = self._remaining(key)
            unknown |= seconds is None
            total, longest = total + (seconds or 0.0), max(longest, seconds or 0.0)
        for kind, waiting in self._waiting.items():
            if waiting.count:
                seconds = self._expected(kind, waiting.share, waiting.passes / waiting.count)
                unknown |= seconds is None
                total, longest = total + waiting.count * (seconds or 0.0), max(longest, seconds or 0.0)
        if unknown:
            return total / slots if total and self._times else None
        return max(total / slots, longest)

    def _remaining(self, key: str) -> float | None:
        fraction, since = self._fraction.get(key, 0.0), self._since.get(key)
        if since is not None and fraction > 0.05:
            return (time.monotonic() - since) * (1 - fraction) / fraction
        cell = self._cells[key]
        seconds = self._expected(cell.kind, _share(cell), cell.passes)
        return None if seconds is None else seconds * (1 - fraction)

    def _expected(self, kind: str, share: float, passes: float) -> float | None:
        """Seconds of one cell of a kind; None while nothing is known."""
        if kind in self._times:
            seconds, count = self._times[kind]
            return seconds / count
        return share * passes * self._spent_s / self._spent_passes if self._spent_passes else None


@dataclass
class _Waiting:
    """Cells of one kind that have not started."""

    share: float
    count: int = 0
    passes: float = 0.0

    def add(self, passes: float) -> None:
        self.count += 1
        self.passes += passes

    def remove(self, passes: float) -> None:
        self.count -= 1
        self.passes -= passes


def _share(cell: PlannedCell) -> float:
    """Share of a cell's passes that are expected to be made."""
    return 1.0 if isinstance(cell.cell, TrainCell) else _SURVIVING


def _chains(cells: Mapping[str, PlannedCell]) -> dict[str, float]:
    """Passes on the longest chain that begins with each cell; cells come after those they need."""
    behind: dict[str, float] = {}
    chains: dict[str, float] = {}
    for key in reversed(list(cells)):
        cell = cells[key]
        chains[key] = cell.passes + behind.pop(key, 0.0)
        for need in cell.needs:
            behind[need] = max(behind.get(need, 0.0), chains[key])
    return chains
