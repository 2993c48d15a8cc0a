"""Which run of which example begins next."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

Job = tuple[int, int]
"""Example and run."""


class RunQueue:
    """Runs of N examples, `runs` each, given out in an order that keeps batches full and wastes little.

    While examples wait, each has one run at a time, because most runs after the first are never needed: the next run
    of an example begins when its last one has ended, before an untouched example gets its first. When nobody waits,
    the remaining runs of the examples under way stand side by side, evenly over the examples.

    Args:
        examples: number of examples.
        runs: runs of an example that never breaks, at least 1.
    """

    def __init__(self, examples: int, runs: int) -> None:
        self.runs = runs
        self._waiting = deque(range(examples))
        self._again: deque[Job] = deque()
        self._begun = [0] * examples
        self._under_way = [0] * examples
        self._broken = [False] * examples

    def take(self, count: int) -> list[Job]:
        """At most `count` runs that are to begin now."""
        taken: list[Job] = []
        while len(taken) < count and self._again:
            job = self._again.popleft()
            if not self._broken[job[0]]:
                taken.append(job)
        while len(taken) < count and self._waiting:
            owner = self._waiting.popleft()
            if not self._broken[owner]:
                taken.append(self._begin(owner))
        if len(taken) < count:
            self._side_by_side(taken, count)
        return taken

    def _side_by_side(self, taken: list[Job], count: int) -> None:
        started = [
            (begun, owner)
            for owner, begun in enumerate(self._begun)
            if self._under_way[owner] and not self._broken[owner] and begun < self.runs
        ]
        heapq.heapify(started)
        while len(taken) < count and started:
            begun, owner = heapq.heappop(started)
            taken.append(self._begin(owner))
            if begun + 1 < self.runs:
                heapq.heappush(started, (begun + 1, owner))

    def _begin(self, owner: int) -> Job:
        run = self._begun[owner]
        self._begun[owner] += 1
        self._under_way[owner] += 1
        return owner, run

    def settle(self, owner: int) -> None:
        """The example is broken: none of its runs begins any more."""
        self._broken[owner] = True

    def end(self, owner: int) -> bool:
        """A run of an unbroken example has used up its budget; returns whether that was its last one."""
        self._under_way[owner] -= 1
        if self._under_way[owner]:
            return False
        if self._begun[owner] < self.runs:
            self._waiting.appendleft(owner)
            return False
        return True

    def again(self, jobs: Iterable[Job]) -> None:
        """These runs were given up half-way and begin once more, before all others."""
        self._again.extend(jobs)
