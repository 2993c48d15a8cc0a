"""How long the rest of a run will take, learned while it runs."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from robusteval.schema.cells import TrainCell

if TYPE_CHECKING:
    from robusteval.planning.plan import PlannedCell

_SURVIVING = 0.25
"""Share of an attack's largest possible cost that is expected before any was seen: most examples break early."""


class Estimator:
    """Predicts from the mean time of finished cells of the same kind, else from passes at the rate seen so far.

    Args:
        cells: the cells that are to run; `kind` says which are alike, `passes` how much work each is.
    """

    def __init__(self, cells: Iterable[PlannedCell]) -> None:
        self._cells = {cell.key: cell for cell in cells}
        self._open = set(self._cells)
        self._since: dict[str, float] = {}
        self._fraction: dict[str, float] = {}
        self._times: dict[str, list[float]] = defaultdict(list)
        self._spent_s = 0.0
        self._spent_passes = 0.0
        followers: dict[str, list[str]] = defaultdict(list)
        for cell in self._cells.values():
            for need in cell.needs:
                followers[need].append(cell.key)

        @cache
        def chain(key: str) -> float:
            return self._cells[key].passes + max((chain(after) for after in followers[key]), default=0.0)

        self.chain = chain
        """Passes on the longest chain of cells that begins with this one."""

    def started(self, key: str) -> None:
        """A cell begins."""
        self._since[key] = time.monotonic()

    def paused(self, key: str) -> None:
        """A cell goes back into the queue."""
        self._since.pop(key, None)

    def progressed(self, key: str, fraction: float) -> None:
        """A cell is `fraction` done."""
        self._fraction[key] = fraction

    def finished(self, key: str, wall_s: float) -> None:
        """A cell took `wall_s` seconds."""
        cell = self._cells[key]
        self._open.discard(key)
        self._since.pop(key, None)
        self._times[cell.kind].append(wall_s)
        self._spent_s += wall_s
        self._spent_passes += cell.passes

    def eta(self, slots: int) -> float | None:
        """Seconds until everything is done with `slots` cells at a time; None while nothing is known."""
        rest = [self._remaining(key) for key in self._open]
        known = [seconds for seconds in rest if seconds is not None]
        if not known or len(known) < len(rest):
            return None if not known or not self._times else sum(known) / slots
        return max(sum(known) / slots, *known)

    def _remaining(self, key: str) -> float | None:
        fraction, since = self._fraction.get(key, 0.0), self._since.get(key)
        if since is not None and fraction > 0.05:
            return (time.monotonic() - since) * (1 - fraction) / fraction
        cell = self._cells[key]
        if self._times[cell.kind]:
            seconds = sum(self._times[cell.kind]) / len(self._times[cell.kind])
        elif self._spent_passes:
            share = 1.0 if isinstance(cell.cell, TrainCell) else _SURVIVING
            seconds = share * cell.passes * self._spent_s / self._spent_passes
        else:
            return None
        return seconds * (1 - fraction)
