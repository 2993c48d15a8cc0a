"""One order out of several: mean rank, mean win rate, Bradley-Terry, and how far they agree.

Each of them answers another question, and each can change when a model is added; none is the order of a board. They
are shown beside each other with Kendall's tau between them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata

VIRTUAL_TIES = 0.5
"""Weight of a tie that is added to every pair, so that a model that never loses has a finite strength."""
ELO = 400.0
"""Points of a tenfold ratio of odds."""


@dataclass(frozen=True)
class Match:
    """Two models on one task.

    Attributes:
        first: a model.
        second: another one.
        winner: which one was better, or `tie`.
        task: board, domain or column; tasks, not matches, are drawn in the bootstrap.
    """

    first: str
    second: str
    winner: Literal["first", "second", "tie"]
    task: str


@dataclass(frozen=True)
class Strength:
    """Bradley-Terry strength on the Elo scale, 0 being the mean of all models.

    Attributes:
        value: the estimate.
        low: lower end of the 95 % percentile interval over tasks; the value itself with one task.
        high: upper end.
    """

    value: float
    low: float
    high: float


def matches_of(task: str, values: Mapping[str, float], tied: Mapping[str, int] | None = None) -> list[Match]:
    """All pairs of one task; larger is better.

    Args:
        task: its name.
        values: model to value.
        tied: model to tie group; models of one group tie whatever their values. Without it only equal values do.
    """
    names = sorted(values)
    found = []
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            same = values[first] == values[second] or (tied is not None and tied[first] == tied[second])
            ahead: Literal["first", "second"] = "first" if values[first] > values[second] else "second"
            found.append(Match(first, second, "tie" if same else ahead, task))
    return found


def win_rates(matches: Sequence[Match]) -> dict[str, float]:
    """Mean over tasks of the share of opponents beaten, ties counting one half."""
    tasks: dict[str, dict[str, list[float]]] = {}
    for match in matches:
        score = {"first": 1.0, "second": 0.0, "tie": 0.5}[match.winner]
        won = tasks.setdefault(match.task, {})
        won.setdefault(match.first, []).append(score)
        won.setdefault(match.second, []).append(1.0 - score)
    names = sorted({name for won in tasks.values() for name in won})
    shares = {name: [float(np.mean(won[name])) for won in tasks.values() if name in won] for name in names}
    return {name: float(np.mean(own)) for name, own in shares.items()}


def bradley_terry(matches: Sequence[Match], *, resamples: int = 199, seed: int = 0) -> dict[str, Strength]:
    """Strengths b with P(i beats j) = 1 / (1 + 10^((b_j - b_i) / 400)), and their intervals over tasks.

    Every pair that met gets a virtual tie of weight one half.

    Args:
        matches: all matches.
        resamples: bootstrap draws of tasks.
        seed: seed of the draws.
    """
    names = sorted({name for match in matches for name in (match.first, match.second)})
    if not names:
        return {}
    by_task: dict[str, list[Match]] = {}
    for match in matches:
        by_task.setdefault(match.task, []).append(match)
    tasks = list(by_task.values())
    centre = _strengths(names, tasks)
    rng = np.random.default_rng(seed)
    drawn = [centre]
    if len(tasks) > 1:
        chosen = rng.integers(0, len(tasks), size=(resamples, len(tasks)))
        drawn = [_strengths(names, [tasks[index] for index in row]) for row in chosen]
    ends = np.quantile(np.array(drawn), (0.025, 0.975), axis=0)
    return {
        name: Strength(float(value), min(float(low), float(value)), max(float(high), float(value)))
        for name, value, low, high in zip(names, centre, ends[0], ends[1], strict=True)
    }


def _strengths(names: Sequence[str], tasks: Sequence[Sequence[Match]]) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a build without the compiled solver warns on import, and is right as well
        import evalica

    code = {"first": evalica.Winner.X, "second": evalica.Winner.Y, "tie": evalica.Winner.Draw}
    flat = [match for task in tasks for match in task]
    met = sorted({(match.first, match.second) for match in flat})
    result = evalica.bradley_terry(
        [*(match.first for match in flat), *(first for first, _ in met)],
        [*(match.second for match in flat), *(second for _, second in met)],
        [*(code[match.winner] for match in flat), *([evalica.Winner.Draw] * len(met))],
        weights=[1.0] * len(flat) + [VIRTUAL_TIES] * len(met),
        tolerance=1e-9,
        limit=10_000,
    )
    scores = result.scores
    known = {name: ELO * math.log10(float(scores[name])) for name in names if name in scores.index}
    middle = float(np.mean(list(known.values()))) if known else 0.0
    return np.array([known.get(name, middle) - middle for name in names])


def mean_ranks(columns: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Mean over columns of each model's rank, equal values sharing the middle one; larger values rank first.

    Only models that every column has are ranked.
    """
    tables = list(columns.values())
    names = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    ranks = [rankdata([-table[name] for name in names]) for table in tables]
    return {name: float(np.mean([row[index] for row in ranks])) for index, name in enumerate(names)}


def rank_agreement(rules: Mapping[str, Mapping[str, float]]) -> dict[tuple[str, str], float]:
    """Kendall's tau-b between the orders that rules give, over the models both rank; larger is better in every rule.

    Pairs of rules that share fewer than two models, or one of which orders nothing, are left out.
    """
    found = {}
    names = list(rules)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            shared = sorted(set(rules[first]) & set(rules[second]))
            left, right = [rules[first][name] for name in shared], [rules[second][name] for name in shared]
            if len(set(left)) > 1 and len(set(right)) > 1:
                found[first, second] = float(kendalltau(left, right).statistic)
    return found
