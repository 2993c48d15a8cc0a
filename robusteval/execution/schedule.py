"""Which cell starts next: the ones whose needs are in the store, the longest chain of work first."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robusteval.planning.plan import PlannedCell


class Schedule:
    """The cells of a run that have not ended.

    Every step costs the logarithm of the number of cells and never looks at all of them, so that the time of a run
    grows with its cells and not with their square.

    Args:
        cells: the cells that are to run, by key.
        done: keys of cells that have a result.
        chain: passes on the longest chain of cells that begins with the given one.
    """

    def __init__(self, cells: Mapping[str, PlannedCell], done: Collection[str], chain: Callable[[str], float]) -> None:
        self.waiting = dict(cells)
        """Cells that have not started, ready or not."""
        self._chain = chain
        self._position = {key: position for position, key in enumerate(cells)}
        self._open_needs: dict[str, int] = {}
        self._followers: dict[str, list[str]] = defaultdict(list)
        self._ready: list[tuple[float, int, str]] = []
        self._resting: list[tuple[float, str]] = []
        for key, cell in cells.items():
            needs = {need for need in cell.needs if need not in done}
            self._open_needs[key] = len(needs)
            for need in needs:
                self._followers[need].append(key)
            if not needs:
                self._make_ready(key)

    def take(self, now: float) -> PlannedCell | None:
        """Give out the cell that should start next, or None if none can start now.

        Args:
            now: the time, on the clock of `rest`.
        """
        while self._resting and self._resting[0][0] <= now:
            self._make_ready(heapq.heappop(self._resting)[1])
        return self.waiting.pop(heapq.heappop(self._ready)[2]) if self._ready else None

    def rest(self, cell: PlannedCell, until: float) -> None:
        """Take back a cell that another run is at; it can start again at `until`."""
        self.waiting[cell.key] = cell
        heapq.heappush(self._resting, (until, cell.key))

    def finished(self, key: str) -> None:
        """A cell has its result: what waited only for it can start."""
        for follower in self._followers.pop(key, ()):
            self._open_needs[follower] -= 1
            if not self._open_needs[follower]:
                self._make_ready(follower)

    @property
    def resting(self) -> bool:
        """Whether a cell waits for nothing but another run."""
        return bool(self._resting)

    def _make_ready(self, key: str) -> None:
        heapq.heappush(self._ready, (-self._chain(key), self._position[key], key))
