"""Paired comparison over repetitions: the bootstrap that draws training seeds first and examples inside.

A difference of two methods has two sources of noise: another training run gives another model, and another test set
gives another accuracy. Groups of examples are drawn once for both sides, which keeps the pairing; the seeds of each
side are drawn by themselves, because run 0 of one method has nothing to do with run 0 of another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

_CHUNK = 1 << 22


@dataclass(frozen=True)
class RepeatedDifference:
    """Candidate minus base, over repetitions and examples.

    Attributes:
        value: difference of the means.
        se: bootstrap standard error.
        df: degrees of freedom of the t distribution that the error is read with.
    """

    value: float
    se: float
    df: float

    def p_worse(self) -> float:
        """One-sided p-value against `no worse`."""
        if self.se == 0.0:
            return 0.0 if self.value < 0.0 else 1.0
        return float(stdtr(self.df, self.value / self.se))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Two-sided t interval of that coverage, cut to [-1, 1]."""
        half = float(stdtrit(self.df, (1.0 + confidence) / 2.0)) * self.se
        return max(-1.0, self.value - half), min(1.0, self.value + half)

    def detectable(self, alpha: float, power: float) -> float:
        """Smallest drop found with `power` at the one-sided level `alpha`, in [0, 1]."""
        quantiles = float(stdtrit(self.df, 1.0 - alpha)) + float(stdtrit(self.df, power))
        return min(1.0, max(0.0, quantiles * self.se))


def repeated_difference(
    base: ArrayLike,
    candidate: ArrayLike,
    groups: Sequence[str],
    weights: ArrayLike | None = None,
    *,
    draw_repetitions: bool,
    resamples: int = 1999,
    seed: int = 0,
) -> RepeatedDifference:
    """Hierarchical bootstrap of a paired difference.

    With few repetitions S the plain bootstrap sees too little of their spread: a drawn mean varies by `(S - 1) / S` of
    what it should. The means of the repetitions are therefore spread by `sqrt(S / (S - 1))`, and the error is read
    with Student's t at `S_base + S_candidate - 2` degrees of freedom. What one run gets right by chance counts in both
    stages, so the error is a little too large: false alarms are rarer than the level says, never more frequent.

    Args:
        base: (S_base, N) outcomes in [0, 1].
        candidate: (S_candidate, N) outcomes of the same examples.
        groups: N group names; whole groups are drawn.
        weights: (N,) weights of the examples; equal by default.
        draw_repetitions: whether the repetitions are a sample too (training seeds), or all there is to average over
            (attack seeds).
        resamples: number of bootstrap draws.
        seed: seed of the draws.

    Raises:
        ValueError: the shapes do not fit, or repetitions are to be drawn and a side has fewer than two.
    """
    sides = [np.atleast_2d(np.asarray(side, dtype=np.float64)) for side in (base, candidate)]
    n = sides[0].shape[1]
    if sides[1].shape[1] != n or len(groups) != n or n == 0:
        raise ValueError(f"{sides[0].shape} and {sides[1].shape} outcomes and {len(groups)} groups are not the same N")
    counts = [side.shape[0] for side in sides]
    if draw_repetitions and min(counts) < 2:
        raise ValueError(f"{counts[0]} and {counts[1]} repetitions: two a side are the least that show a spread")
    weight = np.full(n, 1.0 / n) if weights is None else np.asarray(weights, dtype=np.float64)
    _, codes = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    size = int(codes.max()) + 1
    total = np.bincount(codes, weights=weight, minlength=size).astype(np.float64)
    parts = [
        np.stack([np.bincount(codes, weights=weight * row, minlength=size) for row in side]).astype(np.float64)
        for side in sides
    ]
    if draw_repetitions:
        parts = [_widened(part, total) for part in parts]
    rng = np.random.default_rng(seed)
    drawn = _draw(parts, total, draw_repetitions, resamples, rng)
    value = float((parts[1].mean(axis=0) - parts[0].mean(axis=0)).sum() / total.sum())
    df = float(sum(counts) - 2) if draw_repetitions else float(max(1, size - 1))
    return RepeatedDifference(value, float(drawn.std(ddof=1)), df)


def _widened(part: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same with the mean of every repetition moved away from the common mean; the examples' own noise stays."""
    means = part.sum(axis=1, keepdims=True)
    factor = math.sqrt(len(part) / (len(part) - 1)) - 1.0
    found: NDArray[np.float64] = part + factor * (means - means.mean()) * total / total.sum()
    return found


def _draw(
    parts: list[NDArray[np.float64]],
    total: NDArray[np.float64],
    repetitions: bool,
    resamples: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    size = len(total)
    step = max(1, _CHUNK // size)
    found = []
    for start in range(0, resamples, step):
        many = min(step, resamples - start)
        drawn = rng.multinomial(size, np.full(size, 1.0 / size), size=many).astype(np.float64)
        means = [_side(part, drawn, repetitions, rng) for part in parts]
        found.append((means[1] - means[0]) / (drawn @ total))
    return np.concatenate(found)


def _side(
    part: NDArray[np.float64], drawn: NDArray[np.float64], repetitions: bool, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Weighted sum of the drawn groups, per draw, averaged over the drawn repetitions."""
    count = len(part)
    sums = drawn @ part.T
    if not repetitions:
        plain: NDArray[np.float64] = sums.mean(axis=1)
        return plain
    times = rng.multinomial(count, np.full(count, 1.0 / count), size=len(drawn))
    found: NDArray[np.float64] = (sums * times).sum(axis=1) / count
    return found
