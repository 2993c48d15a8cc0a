"""Ranks that admit ties: all pairs compared, corrected for their number, and what cannot be told apart shares a group.

Where per-example outcomes exist, a pair is compared by the exact test of flipped signs (McNemar's test for single
outcomes); where only values and intervals are known, by the normal test of two independent values. Over all m (m - 1)
/ 2 pairs Holm's correction holds the chance of a single false difference at `alpha`, so the rank intervals hold
together: with probability 1 - alpha every model's true rank lies in its own.

Pairs are kept as scipy's condensed vectors: (0, 1), (0, 2), ..., (0, m - 1), (1, 2), ...
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, ndtr, ndtri

from robusteval.stats.paired import sign_flip_test

EXACT_LIMIT = 200
"""Most models whose pairs are all tested exactly when outcomes are grouped or averaged; beyond, the normal limit."""
NEGLIGIBLE = 1e-15
"""On boards of more than `EXACT_LIMIT` models, p-values of McNemar's test below this are replaced by an upper bound."""
_ROWS = 256


@dataclass(frozen=True)
class Ranks:
    """A ranking of m models with its ties.

    Attributes:
        order: indices of the models, best first; equal values in the given order.
        group: per model, number of its tie group, 1 for that of the best one. A group begins with the best model that
            the leader of the group before is significantly better than.
        rank: per model, 1 more than the number of models in the groups before its own.
        low: per model, best rank it can have: 1 more than the number of models that are significantly better.
        high: per model, worst rank it can have.
    """

    order: tuple[int, ...]
    group: tuple[int, ...]
    rank: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]


def pairwise_outcomes(sums: ArrayLike) -> NDArray[np.float64]:
    """Two-sided p-values of all pairs of models that were measured on the same examples.

    Args:
        sums: (m, G) whole numbers: correct answers of each model in each group of examples. With 0 and 1 only, every
            example stands alone, and the test is McNemar's exact one. Otherwise it is the exact sign-flip test of
            group differences up to `EXACT_LIMIT` models, and its normal limit beyond.

    Returns:
        Condensed vector of m (m - 1) / 2 p-values.
    """
    table = np.asarray(sums)
    if table.ndim != 2:
        raise ValueError(f"{table.shape} is not models by groups")
    if table.size == 0 or (table.min() >= 0 and table.max() <= 1):
        return _mcnemar(table)
    table = table.astype(np.int64)
    if len(table) <= EXACT_LIMIT:
        pairs = ((i, j) for i in range(len(table)) for j in range(i + 1, len(table)))
        return np.array([sign_flip_test((table[j] - table[i]).tolist()) for i, j in pairs], dtype=np.float64)
    return _normal_limit(table)


def pairwise_intervals(
    values: ArrayLike, low: ArrayLike, high: ArrayLike, confidence: float = 0.95
) -> NDArray[np.float64]:
    """Two-sided p-values of all pairs of independently measured values with intervals (square and add).

    Args:
        values: m estimates.
        low: m lower ends.
        high: m upper ends.
        confidence: coverage of the intervals.

    Returns:
        Condensed vector of m (m - 1) / 2 p-values.
    """
    centre = np.asarray(values, dtype=np.float64)
    below, above = centre - np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64) - centre
    if bool(np.any(below < 0.0) or np.any(above < 0.0)):
        raise ValueError("a value lies outside its interval")
    quantile = float(ndtri((1.0 + confidence) / 2.0))
    first, second = np.triu_indices(centre.size, 1)
    difference = centre[first] - centre[second]
    up = difference > 0
    # The ends that face each other decide: the lower one of the larger value, the upper one of the smaller.
    facing = np.hypot(np.where(up, below[first], above[first]), np.where(up, above[second], below[second]))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(facing > 0.0, np.abs(difference) * quantile / facing, np.where(difference == 0.0, 0.0, np.inf))
    return np.asarray(2.0 * ndtr(-z), dtype=np.float64)


def holm_pairs(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's adjustment of many p-values at once; the same numbers as `paired.holm`."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1.0, p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(stepped)
    return adjusted


def rank_with_ties(values: Sequence[float], adjusted: ArrayLike, alpha: float = 0.05) -> Ranks:
    """Order models by value, larger first, and say which of them differ.

    Args:
        values: m values, larger is better.
        adjusted: condensed adjusted p-values of all pairs.
        alpha: level below which two models differ.

    Raises:
        ValueError: the number of pairs is not that of the models.
    """
    m = len(values)
    p = np.asarray(adjusted, dtype=np.float64)
    if p.size != m * (m - 1) // 2:
        raise ValueError(f"{p.size} p-values for {m} models; need {m * (m - 1) // 2}")
    centre = np.asarray(values, dtype=np.float64)
    order = np.argsort(-centre, kind="stable")
    better, worse = np.zeros(m, dtype=np.int64), np.zeros(m, dtype=np.int64)
    differ = np.zeros((m, m), dtype=np.bool_)
    start = 0
    for i in range(m - 1):
        row = p[start : start + m - 1 - i] < alpha
        start += m - 1 - i
        apart = row & (centre[i + 1 :] != centre[i])
        differ[i, i + 1 :] = apart
        differ[i + 1 :, i] = apart
    for i in range(m):
        better[i] = np.count_nonzero(differ[i] & (centre > centre[i]))
        worse[i] = np.count_nonzero(differ[i] & (centre < centre[i]))
    group, rank = np.zeros(m, dtype=np.int64), np.zeros(m, dtype=np.int64)
    number, leader, first = 0, -1, 0
    for place, index in enumerate(order, start=1):
        if leader < 0 or differ[leader, index]:
            number, leader, first = number + 1, index, place
        group[index], rank[index] = number, first
    return Ranks(
        order=tuple(int(index) for index in order),
        group=tuple(int(one) for one in group),
        rank=tuple(int(one) for one in rank),
        low=tuple(int(one) + 1 for one in better),
        high=tuple(m - int(one) for one in worse),
    )


def _mcnemar(table: NDArray[np.integer]) -> NDArray[np.float64]:
    m = len(table)
    right = table.astype(np.float32, copy=False)  # counts up to 2^24 stay exact in a product of float32
    counts = right.sum(axis=1)
    parts = []
    for start in range(0, m, _ROWS):
        both = right[start : start + _ROWS] @ right.T
        for offset, row in enumerate(both):
            i = start + offset
            losses = (counts[i] - row[i + 1 :]).astype(np.float64)
            gains = (counts[i + 1 :] - row[i + 1 :]).astype(np.float64)
            total = losses + gains
            parts.append(_two_sided(np.minimum(losses, gains), total, bounded=m > EXACT_LIMIT))
    return np.concatenate(parts) if parts else np.zeros(0)


def _two_sided(fewer: NDArray[np.float64], total: NDArray[np.float64], *, bounded: bool) -> NDArray[np.float64]:
    """Exact two-sided p-values of `fewer` successes or less in `total` fair trials.

    With `bounded`, those that are certain to lie below `NEGLIGIBLE` are replaced by Hoeffding's bound, which is never
    below them.
    """
    trials = np.maximum(total, 1.0)
    found = 2.0 * np.exp(-2.0 * (total / 2.0 - fewer) ** 2 / trials)
    exact = found >= NEGLIGIBLE if bounded else np.ones(found.shape, dtype=np.bool_)
    found[exact] = 2.0 * bdtr(fewer[exact], trials[exact].astype(np.int64), 0.5)
    return np.where(total > 0.0, np.minimum(1.0, found), 1.0)


def _normal_limit(table: NDArray[np.int64]) -> NDArray[np.float64]:
    sums = table.astype(np.float64)
    squares, totals = np.sum(sums * sums, axis=1), sums.sum(axis=1)
    parts = []
    for start in range(0, len(sums), _ROWS):
        products = sums[start : start + _ROWS] @ sums.T
        for offset, row in enumerate(products):
            i = start + offset
            spread = np.sqrt(np.maximum(0.0, squares[i] + squares[i + 1 :] - 2.0 * row[i + 1 :]))
            net = np.abs(totals[i + 1 :] - totals[i])
            z = np.divide(net, spread, out=np.zeros_like(net), where=spread > 0.0)
            parts.append(2.0 * ndtr(-z))
    return np.concatenate(parts) if parts else np.zeros(0)


def detectable_difference(
    n: float, discordant_share: float, pairs: int, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Difference of two models that a board of `pairs` pairs tells apart with the given power (normal approximation).

    Uses Bonferroni's level `alpha / pairs`, the first and hardest step of Holm's.
    """
    level = alpha / max(1, pairs) / 2.0
    quantiles = float(ndtri(1.0 - level)) + float(ndtri(power))
    return min(1.0, quantiles * math.sqrt(max(discordant_share, 1.0 / n) / n))
