"""How many workers a plan can keep busy before it runs dry, computed from its chains of cells and their passes.

A cell is one task of one worker and starts when what it needs is done, so a run is never shorter than its longest
chain. The passes of a plan are upper limits, most of all those of attacks, so the numbers compare workers and are no
times.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from robusteval.planning.plan import Plan, PlannedCell
from robusteval.schema.types import JsonValue

_NEAR = 1.05
"""A run that takes at most this many times as long as the shortest possible one counts as equally long."""


@dataclass(frozen=True)
class WorkerEstimate:
    """What workers bring.

    Attributes:
        total: passes of all cells that are to run.
        chain: titles of the longest chain of cells that need each other.
        longest: passes of that chain, which no number of workers shortens.
        spans: number of workers to the passes that the busiest of them makes, waiting included.
        useful: workers beyond which a run gets at most 5 % shorter.
    """

    total: int
    chain: tuple[str, ...]
    longest: int
    spans: Mapping[int, int]
    useful: int

    def summary(self) -> dict[str, JsonValue]:
        """The estimate as an entry of a listing."""
        return {
            "useful": self.useful,
            "passes": self.total,
            "longest_chain": list(self.chain),
            "longest_chain_passes": self.longest,
            "passes_by_workers": {str(workers): span for workers, span in self.spans.items()},
        }


def estimate_workers(plan: Plan) -> WorkerEstimate:
    """Simulate a plan on one worker, on two, four and so on, until more workers bring nothing."""
    cells = {cell.key: cell for cell in plan.cells if cell.state != "done"}
    chains, follower = _chains(cells)
    longest = max(chains.values(), default=0)
    spans = {1: sum(cell.passes for cell in cells.values())}
    workers = 1
    while spans[workers] > _NEAR * longest and workers < len(cells):
        workers *= 2
        spans[workers] = span(cells, chains, workers)
    useful = _fewest(cells, chains, workers, spans)
    spans.setdefault(useful, span(cells, chains, useful))
    return WorkerEstimate(
        total=spans[1],
        chain=_longest(cells, chains, follower),
        longest=longest,
        spans={count: spans[count] for count in sorted(spans) if count <= useful},
        useful=useful,
    )


def span(cells: Mapping[str, PlannedCell], chains: Mapping[str, int], workers: int) -> int:
    """Passes until the last of `workers` has ended, if each takes the ready cell with the longest chain behind it."""
    followers: dict[str, list[str]] = defaultdict(list)
    open_needs = dict.fromkeys(cells, 0)
    for key, cell in cells.items():
        for need in cell.needs:
            if need in cells:
                followers[need].append(key)
                open_needs[key] += 1
    ready = [(-chains[key], key) for key, needs in open_needs.items() if not needs]
    heapq.heapify(ready)
    running: list[tuple[int, str]] = []
    now = 0
    while ready or running:
        while ready and len(running) < workers:
            key = heapq.heappop(ready)[1]
            heapq.heappush(running, (now + cells[key].passes, key))
        now, ended = heapq.heappop(running)
        for key in followers[ended]:
            open_needs[key] -= 1
            if not open_needs[key]:
                heapq.heappush(ready, (-chains[key], key))
    return now


def _fewest(cells: Mapping[str, PlannedCell], chains: Mapping[str, int], enough: int, spans: Mapping[int, int]) -> int:
    """Fewest workers that are nearly as good as `enough`, which the next smaller power of two is not."""
    low, high = enough // 2, enough
    while high - low > 1:
        middle = (low + high) // 2
        if span(cells, chains, middle) <= _NEAR * spans[enough]:
            high = middle
        else:
            low = middle
    return high


def _chains(cells: Mapping[str, PlannedCell]) -> tuple[dict[str, int], dict[str, str]]:
    """Passes of the longest chain that begins with each cell, and the cell that follows in it."""
    chains = {key: cell.passes for key, cell in cells.items()}
    follower: dict[str, str] = {}
    for key in reversed(list(cells)):
        for need in cells[key].needs:
            if need in cells and chains[need] < cells[need].passes + chains[key]:
                chains[need] = cells[need].passes + chains[key]
                follower[need] = key
    return chains, follower


def _longest(
    cells: Mapping[str, PlannedCell], chains: Mapping[str, int], follower: Mapping[str, str]
) -> tuple[str, ...]:
    titles: Sequence[str] = ()
    key = max(chains, key=lambda one: chains[one], default=None)
    while key is not None:
        titles = (*titles, cells[key].title)
        key = follower.get(key)
    return tuple(titles)
