"""Intervals for accuracies and for differences of accuracies.

Over examples: Wilson's score interval (Wilson 1927), at an effective sample size where examples are not independent
(Kish 1965; Korn and Graubard 1998). Differences: square-and-add of the two Wilson intervals with the correlation of
the two means (Newcombe 1998; Zou and Donner 2008). Over training seeds: Student's t.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtri, stdtrit

Interval = tuple[float, float]
"""Lower and upper end."""


@dataclass(frozen=True)
class ClusteredEstimate:
    """A mean, or a difference of means, with its interval over examples.

    Attributes:
        value: the estimate.
        low: lower end of the interval.
        high: upper end of the interval.
        n: number of examples.
        n_effective: independent examples that would give the same variance, in [1, n]; for a difference the smaller
            number of its two sides.
        influence: per group, what its examples add to the estimate's deviation from its expectation. Sums to zero;
            the sum of squares estimates the variance.
    """

    value: float
    low: float
    high: float
    n: int
    n_effective: float
    influence: Mapping[str, float] = field(repr=False, compare=False, default_factory=dict)


def _tail(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    return (1.0 + confidence) / 2.0


def _check_count(successes: float, n: float) -> None:
    if not n > 0.0 or not 0.0 <= successes <= n or not math.isfinite(n):
        raise ValueError(f"{successes} successes of {n} is not a proportion")


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion.

    Args:
        successes: number of successes in [0, n]; a fraction where outcomes were averaged.
        n: number of trials, above 0; a fraction where it is an effective number.
        confidence: coverage aimed at.

    Returns:
        `(low, high)` in [0, 1]; it always contains `successes / n`.

    Raises:
        ValueError: the counts are not a proportion.
    """
    _check_count(successes, n)
    z = float(ndtri(_tail(confidence)))
    p = successes / n
    scale = 1.0 + z * z / n
    centre = (p + z * z / (2.0 * n)) / scale
    half = z / scale * math.sqrt(p * (1.0 - p) / n + z * z / (4.0 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return min(low, p), max(high, p)


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact binomial interval (Clopper and Pearson 1934); never covers less than `confidence`.

    Raises:
        ValueError: the counts are not a proportion.
    """
    _check_count(successes, n)
    tail = _tail(confidence)
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, 1.0 - tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, tail))
    return low, high


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Student's t interval of the mean of independent repetitions, such as training seeds (ddof 1).

    Returns:
        `(low, high)`, not clipped to any range; None for fewer than two values, where no spread can be seen.
    """
    n = len(values)
    if n < 2:
        return None
    sample = np.asarray(values, dtype=np.float64)
    half = float(stdtrit(n - 1, _tail(confidence))) * float(sample.std(ddof=1)) / math.sqrt(n)
    mean = float(sample.mean())
    return mean - half, mean + half


def wilson_clustered(
    values: ArrayLike,
    groups: Sequence[str],
    *,
    strata: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> ClusteredEstimate:
    """Wilson interval of a mean over examples of which those in one group are not independent.

    In one sentence: the error bar is the Wilson interval of the mean at the effective sample size
    `n_eff = p (1 - p) / V`, where `V` is the variance of the mean when whole groups, not examples, are drawn.

    With weights `w_i` that sum to one, stratum means `m_s` and residuals `r_i = x_i - m_s(i)`,

        p = sum_i w_i x_i        V = c sum_g (sum_{i in g} w_i r_i)^2        c = G (n - 1) / ((G - 1) n)

    over G groups; `c` is 1 when each example is a group of its own, so the plain Wilson interval is a special case.
    `n_eff` is at most n: negative correlation, or averaging over training seeds, never makes the interval shorter
    than that of n single outcomes. It is at least 1. If all outcomes are equal no correlation can be seen, and each
    group counts as one example. Meant for 30 or more groups.

    Args:
        values: (n,) per-example means in [0, 1]; average the training seeds of an example first.
        groups: n group names; examples made from one source image share one.
        strata: n names of strata, such as domains, whose means weigh the same in `value` (the macro mean) and whose
            differences are no error; one stratum by default.
        confidence: coverage aimed at.

    Raises:
        ValueError: no values, values outside [0, 1], or lengths that differ.
    """
    sample = np.asarray(values, dtype=np.float64)
    n = sample.size
    if n == 0 or sample.ndim != 1 or len(groups) != n or (strata is not None and len(strata) != n):
        raise ValueError(f"{sample.shape} values and {len(groups)} groups: each value needs one group and one stratum")
    if not bool(np.all((sample >= 0.0) & (sample <= 1.0))):
        raise ValueError("per-example means must lie in [0, 1]")
    value, weighted = _macro(sample, strata)
    names, codes = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    sums = np.bincount(codes, weights=weighted)
    count = len(names)
    correction = count * (n - 1) / ((count - 1) * n) if count > 1 else math.inf
    n_effective = _effective(value, float(np.sum(sums * sums)), correction, (count, n))
    low, high = wilson(value * n_effective, n_effective, confidence)
    scale = math.sqrt(correction) if count > 1 else 1.0
    influence = {str(name): float(part) for name, part in zip(names, sums * scale, strict=True)}
    return ClusteredEstimate(value, min(low, value), max(high, value), n, n_effective, influence)


def _macro(sample: NDArray[np.float64], strata: Sequence[str] | None) -> tuple[float, NDArray[np.float64]]:
    """Mean over strata of stratum means, and the weighted residual of each value."""
    names = np.asarray([""] * sample.size if strata is None else strata, dtype=object).astype(str)
    _, codes = np.unique(names, return_inverse=True)
    sizes = np.bincount(codes)
    means = np.bincount(codes, weights=sample) / sizes
    value = min(1.0, max(0.0, float(means.mean())))
    return value, (sample - means[codes]) / (sizes[codes] * len(sizes))


def _effective(value: float, squares: float, correction: float, counts: tuple[int, int]) -> float:
    groups, n = counts
    bernoulli = value * (1.0 - value)
    if bernoulli < 1e-15:
        return float(groups)
    if groups == 1:
        return 1.0
    variance = squares * correction
    if variance * n <= bernoulli:
        return float(n)
    return max(1.0, bernoulli / variance)


def difference(first: ClusteredEstimate, second: ClusteredEstimate) -> ClusteredEstimate:
    """Interval of `first - second` where both may rest on the same examples, or on examples of the same groups.

    With the distances `l`, `u` from each value to its own limits and the correlation `r` of the two means,

        low  = d - sqrt(l1^2 - 2 r l1 u2 + u2^2)        high = d + sqrt(u1^2 - 2 r u1 l2 + l2^2)

    `r` comes from the influences of the groups that both share; it is the phi coefficient for two outcomes of the
    same single examples and 0 for disjoint groups. The result can be used in a difference again (interaction).
    """
    together = correlation(first, second)
    value = first.value - second.value
    below = _square_and_add(first.value - first.low, second.high - second.value, together)
    above = _square_and_add(first.high - first.value, second.value - second.low, together)
    names = [*first.influence, *(name for name in second.influence if name not in first.influence)]
    influence = {name: first.influence.get(name, 0.0) - second.influence.get(name, 0.0) for name in names}
    n = min(first.n, second.n)
    return ClusteredEstimate(
        value, value - below, value + above, n, min(first.n_effective, second.n_effective), influence
    )


def correlation(first: ClusteredEstimate, second: ClusteredEstimate) -> float:
    """Correlation of two estimates, from the influences of the groups that both share; in [-1, 1]."""
    squares_first = sum(part * part for part in first.influence.values())
    squares_second = sum(part * part for part in second.influence.values())
    shared = sum(part * second.influence.get(name, 0.0) for name, part in first.influence.items())
    product = math.sqrt(squares_first * squares_second)
    return min(1.0, max(-1.0, shared / product)) if product > 0.0 else 0.0


def simultaneous_low(value: float, n: float, count: int, confidence: float = 0.95) -> float:
    """One-sided lower limit of one of `count` proportions so that all limits hold together (Bonferroni).

    Clopper and Pearson's limit at level `1 - (1 - confidence) / count`; the smallest of them bounds the worst.

    Args:
        value: the proportion in [0, 1].
        n: examples behind it, a fraction where examples are not independent.
        count: number of proportions.
        confidence: coverage of all of them together.
    """
    successes = value * n
    _check_count(successes, n)
    _tail(confidence)
    return 0.0 if successes <= 0.0 else float(betaincinv(successes, n - successes + 1.0, (1.0 - confidence) / count))


def _square_and_add(first: float, second: float, correlation: float) -> float:
    return math.sqrt(max(0.0, first * first - 2.0 * correlation * first * second + second * second))


def average(first: ClusteredEstimate, second: ClusteredEstimate) -> ClusteredEstimate:
    """Interval of `(first + second) / 2`, by the same rule and with the same correlation as `difference`.

    The counts are those of the smaller sample.
    """
    mirrored = ClusteredEstimate(
        -second.value,
        -second.high,
        -second.low,
        second.n,
        second.n_effective,
        {name: -part for name, part in second.influence.items()},
    )
    total = difference(first, mirrored)
    halves = {name: part / 2.0 for name, part in total.influence.items()}
    return ClusteredEstimate(total.value / 2, total.low / 2, total.high / 2, total.n, total.n_effective, halves)
