"""Other ways to order a group than the board's own, beside each other, and how far they agree."""

from __future__ import annotations

from dataclasses import dataclass

from robusteval.leaderboard.boards import Board
from robusteval.leaderboard.ranking import Group
from robusteval.stats.aggregate import Strength, bradley_terry, matches_of, mean_ranks, rank_agreement, win_rates

MOST = 150
"""Largest group for which all pairs of entries are matched."""


@dataclass(frozen=True)
class RankRules:
    """Orders of the entries that have every deciding column.

    Attributes:
        columns: the columns that were aggregated, as tasks of equal weight.
        mean_rank: id to mean rank over them.
        win_rate: id to mean share of entries beaten.
        strength: id to Bradley-Terry strength, with its interval over columns.
        agreement: pairs of rules to Kendall's tau-b; a column is a rule too.
    """

    columns: tuple[str, ...]
    mean_rank: dict[str, float]
    win_rate: dict[str, float]
    strength: dict[str, Strength]
    agreement: dict[tuple[str, str], float]


def rank_rules(board: Board, group: Group) -> RankRules | None:
    """Aggregate the columns over which fronts are drawn; None for one column or one entry, no matches for too many."""
    wanted = tuple(dict.fromkeys(key for pair in board.pairs for key in pair))
    entries = [entry for entry in group.entries if all(key in entry.columns for key in wanted)]
    if len(wanted) < 2 or len(entries) < 2:
        return None
    sign = {key: 1.0 if board.column(key).higher_is_better else -1.0 for key in wanted}
    tables = {key: {entry.id: sign[key] * entry.columns[key].value for entry in entries} for key in wanted}
    ranks = mean_ranks(tables)
    rules = {board.column(key).title: values for key, values in tables.items()}
    rules["mean rank"] = {name: -rank for name, rank in ranks.items()}
    if len(entries) > MOST:
        return RankRules(wanted, ranks, {}, {}, rank_agreement(rules))
    matches = [match for key, values in tables.items() for match in matches_of(key, values)]
    rates, strengths = win_rates(matches), bradley_terry(matches)
    rules["win rate"] = rates
    rules["Bradley-Terry"] = {name: strength.value for name, strength in strengths.items()}
    return RankRules(wanted, ranks, rates, strengths, rank_agreement(rules))
