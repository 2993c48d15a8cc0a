"""A board as it is shown: entries in groups by badge, ordered, tied, on or off the fronts.

Reported numbers are a group of their own: they were measured elsewhere, on other examples or by another protocol, and
never stand above or below a measured entry. Within a group the board's first column decides the order. Two entries
tie unless they differ significantly after Holm's correction over all pairs: by a paired exact test where both have
outcomes on the same examples, by their intervals otherwise, and by value alone where nobody gives an interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from robusteval.leaderboard.boards import Board
from robusteval.leaderboard.entries import Entry, Value
from robusteval.leaderboard.evidence import Evidence
from robusteval.stats.front import contributions, front_by_intervals, front_by_outcomes
from robusteval.stats.intervals import wilson
from robusteval.stats.pareto import pareto_front
from robusteval.stats.ties import Ranks, holm_pairs, pairwise_intervals, pairwise_outcomes, rank_with_ties

GroupName = Literal["measured", "reported"]
TieTest = Literal["paired outcomes", "intervals", "values"]


@dataclass(frozen=True)
class Place:
    """Where an entry stands in its group.

    Attributes:
        rank: rank that it shares with its tie group; None if the entry lacks a column that decides the order.
        low: best rank it can have.
        high: worst rank it can have.
    """

    rank: int | None = None
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True)
class Front:
    """A Pareto front over two columns.

    Attributes:
        pair: keys of the columns.
        on: ids of the entries on it.
        probability: id to chance of being on it when the noise of the numbers is drawn again.
        contribution: id to hypervolume that it alone adds.
        volume: hypervolume of the front, with the 95 % interval.
        drawn: whether any noise is known; without it the chance is 0 or 1 and says nothing.
    """

    pair: tuple[str, str]
    on: frozenset[str]
    probability: Mapping[str, float]
    contribution: Mapping[str, float]
    volume: tuple[float, float, float]
    drawn: bool


@dataclass(frozen=True)
class Group:
    """Entries that may be compared with each other.

    Attributes:
        name: `measured` (with `reproduced`) or `reported`.
        entries: in the order of the page; those without a rank last, by id.
        places: id to place.
        test: what decided ties.
        fronts: one for each pair of the board that at least one entry has.
    """

    name: GroupName
    entries: tuple[Entry, ...]
    places: Mapping[str, Place]
    test: TieTest
    fronts: tuple[Front, ...] = field(default=())


def rank_board(
    board: Board, entries: Sequence[Entry], evidence: Evidence | None = None, *, fronts: bool = True
) -> list[Group]:
    """Group, order and tie the active entries of a board; groups without entries are left out.

    Args:
        board: the board.
        entries: its active entries.
        evidence: outcomes, for paired tests and fronts; without it both rest on intervals.
        fronts: whether fronts are computed too.
    """
    names: tuple[GroupName, ...] = ("measured", "reported")
    found = []
    for name in names:
        own = [entry for entry in entries if entry.measured == (name == "measured")]
        if own:
            found.append(_group(board, name, own, evidence, fronts=fronts))
    return found


def shown_value(board: Board, key: str, value: Value) -> Value:
    """A value with an interval where the board knows how many examples its protocol prescribes.

    The entry itself is left as published; the interval is Wilson's and says so.
    """
    n = board.ties.examples
    if value.low is not None or n is None or board.column(key).unit != "accuracy":
        return value
    low, high = wilson(min(n, max(0.0, value.value * n)), n)
    return value.model_copy(
        update={
            "low": min(low, value.value),
            "high": max(high, value.value),
            "n": n,
            "interval": "wilson, prescribed n",
        }
    )


def _group(board: Board, name: GroupName, entries: list[Entry], evidence: Evidence | None, *, fronts: bool) -> Group:
    complete = [entry for entry in entries if all(key in entry.columns for key in board.order)]
    complete.sort(key=lambda entry: (*(-_signed(board, key, entry) for key in board.order), entry.id))
    ranks, test = _ranks(board, complete, evidence)
    places = {
        entry.id: Place(rank=ranks.rank[index], low=ranks.low[index], high=ranks.high[index])
        for index, entry in enumerate(complete)
    }
    rest = sorted((entry for entry in entries if entry.id not in places), key=lambda entry: entry.id)
    places |= {entry.id: Place() for entry in rest}
    drawn = [_front(board, pair, entries, evidence) for pair in board.pairs] if fronts else []
    kept = tuple(front for front in drawn if front is not None)
    return Group(name, (*complete, *rest), places, test, kept)


def _ranks(board: Board, entries: Sequence[Entry], evidence: Evidence | None) -> tuple[Ranks, TieTest]:
    key = board.order[0]
    values = [_signed(board, key, entry) for entry in entries]
    outcomes = None if evidence is None or not entries else evidence.sums(entries, key)
    test: TieTest
    if outcomes is not None:
        p, test = pairwise_outcomes(outcomes), "paired outcomes"
    else:
        shown = [shown_value(board, key, entry.columns[key]) for entry in entries]
        if shown and all(value.low is not None for value in shown):
            p, test = _by_intervals(shown), "intervals"
        else:
            first, second = np.triu_indices(len(values), 1)
            differ = np.asarray(values)[first] != np.asarray(values)[second] if values else np.zeros(0, dtype=bool)
            return rank_with_ties(values, np.where(differ, 0.0, 1.0), board.ties.alpha), "values"
    return rank_with_ties(values, holm_pairs(p), board.ties.alpha), test


def _by_intervals(values: Sequence[Value]) -> np.ndarray:
    numbers = np.array([(value.value, value.low, value.high) for value in values], dtype=np.float64)
    return pairwise_intervals(numbers[:, 0], numbers[:, 1], numbers[:, 2])


def _signed(board: Board, key: str, entry: Entry) -> float:
    """The value of a column, negated where less is better."""
    value = entry.columns[key].value
    return value if board.column(key).higher_is_better else -value


def _front(board: Board, pair: tuple[str, str], entries: Sequence[Entry], evidence: Evidence | None) -> Front | None:
    own = [entry for entry in entries if all(key in entry.columns for key in pair)]
    if not own:
        return None
    points = np.array([[_signed(board, key, entry) for key in pair] for entry in own])
    chance = [board.chance.get(key, 0.0) if board.column(key).higher_is_better else np.inf for key in pair]
    reference = [min(low, float(worst)) for low, worst in zip(chance, points.min(axis=0), strict=True)]
    panels = [None if evidence is None else evidence.panel(own, key) for key in pair]
    paired = [panel for panel in panels if panel is not None]
    if len(paired) == len(pair):
        summary, drawn = front_by_outcomes(paired, reference), True
    else:
        widths = [[_half_width(shown_value(board, key, entry.columns[key])) for key in pair] for entry in own]
        summary, drawn = front_by_intervals(points, widths, reference), bool(np.any(np.asarray(widths) > 0.0))
    added = contributions(points, reference)
    on = pareto_front([tuple(point) for point in points], (True, True))
    return Front(
        pair=pair,
        on=frozenset(own[index].id for index in on),
        probability={entry.id: p for entry, p in zip(own, summary.probability, strict=True)},
        contribution={entry.id: one for entry, one in zip(own, added, strict=True)},
        volume=(summary.volume, summary.low, summary.high),
        drawn=drawn,
    )


def _half_width(value: Value) -> float:
    return 0.0 if value.low is None or value.high is None else (value.high - value.low) / 2.0
