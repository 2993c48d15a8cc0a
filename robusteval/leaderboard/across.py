"""Rows that several boards measured, ranked over boards: what the index says about methods rather than models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from robusteval.leaderboard.boards import Board
from robusteval.leaderboard.ranking import Group
from robusteval.stats.aggregate import Strength, bradley_terry, matches_of, mean_ranks, rank_agreement, win_rates


@dataclass(frozen=True)
class Standing:
    """What one board says about its measured rows.

    Attributes:
        values: row to its value in the column that decides first, larger is better.
        tied: row to its tie group.
    """

    values: Mapping[str, float]
    tied: Mapping[str, int]


@dataclass(frozen=True)
class AcrossBoards:
    """Rows over the boards that have at least two of them.

    Attributes:
        boards: names of the boards.
        found: row to the number of boards that have it.
        win_rate: row to mean share of opponents beaten, ties of a board counting one half.
        strength: row to Bradley-Terry strength, with its interval over boards.
        agreement: pairs of rules to Kendall's tau-b.
    """

    boards: tuple[str, ...]
    found: Mapping[str, int]
    win_rate: Mapping[str, float]
    strength: Mapping[str, Strength]
    agreement: Mapping[tuple[str, str], float]


def standing(board: Board, group: Group) -> Standing:
    """The measured entries of a board by the label of their row; the first of several of one label counts."""
    key = board.order[0]
    sign = 1.0 if board.column(key).higher_is_better else -1.0
    values: dict[str, float] = {}
    tied: dict[str, int] = {}
    for entry in group.entries:
        rank = group.places[entry.id].rank
        if entry.rows and rank is not None and entry.rows[0].label not in values:
            values[entry.rows[0].label] = sign * entry.columns[key].value
            tied[entry.rows[0].label] = rank
    return Standing(values, tied)


def across_boards(standings: Mapping[str, Standing]) -> AcrossBoards | None:
    """Aggregate boards as tasks of equal weight; None unless two boards share two rows.

    Args:
        standings: board to what it says.
    """
    labels = [label for one in standings.values() for label in one.values]
    shared = {label for label in labels if labels.count(label) > 1}
    tables = {name: {k: v for k, v in one.values.items() if k in shared} for name, one in standings.items()}
    tables = {name: values for name, values in tables.items() if len(values) > 1}
    if len(tables) < 2:
        return None
    matches = [match for name, values in tables.items() for match in matches_of(name, values, standings[name].tied)]
    rates, strengths = win_rates(matches), bradley_terry(matches)
    rules = {
        "win rate": rates,
        "Bradley-Terry": {name: one.value for name, one in strengths.items()},
        "mean rank": {name: -rank for name, rank in mean_ranks(tables).items()},
    }
    found = {label: sum(label in values for values in tables.values()) for label in rates}
    return AcrossBoards(tuple(tables), found, rates, strengths, rank_agreement(rules))
