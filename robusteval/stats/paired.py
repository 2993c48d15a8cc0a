"""Comparing two models on the same examples: exact tests, paired difference, multiplicity, sensitivity."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, ndtri

from robusteval.stats.intervals import ClusteredEstimate, difference, wilson_clustered

Alternative = Literal["two-sided", "worse", "better"]
"""What the test looks for in the candidate."""

_RESOLVED = 1e-12


def discordant(base: Sequence[bool], candidate: Sequence[bool]) -> tuple[int, int]:
    """Losses (right before, wrong now) and gains (wrong before, right now).

    Raises:
        ValueError: the lengths differ.
    """
    if len(base) != len(candidate):
        raise ValueError(f"{len(base)} and {len(candidate)} outcomes are not the same examples")
    losses = sum(1 for before, now in zip(base, candidate, strict=True) if before and not now)
    gains = sum(1 for before, now in zip(base, candidate, strict=True) if now and not before)
    return losses, gains


def mcnemar_exact(losses: int, gains: int, alternative: Alternative = "two-sided") -> float:
    """P-value of McNemar's exact test: under no difference, losses are Binomial(losses + gains, 1/2).

    Args:
        losses: examples that became wrong.
        gains: examples that became right.
        alternative: `worse` is P[X >= losses], `better` is P[X >= gains], `two-sided` twice the smaller tail.

    Raises:
        ValueError: a count is negative.
    """
    if losses < 0 or gains < 0:
        raise ValueError(f"{losses} losses and {gains} gains: counts are not negative")
    total = losses + gains
    if total == 0:
        return 1.0
    if alternative == "two-sided":
        return min(1.0, 2.0 * float(bdtr(min(losses, gains), total, 0.5)))
    # P[X >= k] equals P[X <= total - k] because the null is symmetric.
    fewer = gains if alternative == "worse" else losses
    return min(1.0, float(bdtr(fewer, total, 0.5)))


def sign_flip_test(nets: Sequence[int], alternative: Alternative = "two-sided") -> float:
    """Exact p-value of the sum of per-group differences when the sign of every group's difference is a fair coin.

    Generalises McNemar's exact test to groups: with nets of -1, 0 and 1 both give the same number. The null
    distribution is read off its characteristic function, the product of `cos(net * t)`, which resolves about 1e-13,
    so with nets of different sizes a value below 1e-12 is given as 1e-12.

    Args:
        nets: per group, correct answers of the candidate minus those of the base, summed over the group's examples
            and training seeds.
        alternative: `worse` looks for a small sum, `better` for a large one.
    """
    sizes = Counter(abs(int(net)) for net in nets if net)
    if not sizes:
        return 1.0
    divisor = math.gcd(*sizes)
    observed = sum(int(net) for net in nets) // divisor
    span = sum(size * count for size, count in sizes.items()) // divisor
    if len(sizes) == 1:
        gains = (span + observed) // 2
        return mcnemar_exact(span - gains, gains, alternative)
    length = 2 * span + 1
    angles = 2.0 * np.pi * np.arange(span + 1) / length
    characteristic = np.ones(span + 1)
    for size, count in sizes.items():
        characteristic *= np.cos(size // divisor * angles) ** count
    # Entry k of the transform is the probability of the sum k; negative sums wrap around to the end.
    mass = np.maximum(np.fft.irfft(characteristic, n=length), 0.0)
    sums = np.concatenate([np.arange(span + 1), np.arange(-span, 0)])
    tails = {
        "two-sided": np.abs(sums) >= abs(observed),
        "worse": sums <= observed,
        "better": sums >= observed,
    }
    return float(min(1.0, max(_RESOLVED, mass[tails[alternative]].sum())))


def paired_difference(
    base: ArrayLike, candidate: ArrayLike, groups: Sequence[str] | None = None, confidence: float = 0.95
) -> ClusteredEstimate:
    """Candidate minus base accuracy on the same examples, with Newcombe's interval for paired proportions.

    Args:
        base: (n,) outcomes or per-example means in [0, 1].
        candidate: (n,) the same for the candidate.
        groups: n group names; every example stands alone by default.
        confidence: coverage aimed at.

    Raises:
        ValueError: the lengths differ, or values lie outside [0, 1].
    """
    before, now = np.asarray(base, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if before.shape != now.shape:
        raise ValueError(f"{before.shape} and {now.shape} outcomes are not the same examples")
    names = [str(index) for index in range(before.size)] if groups is None else groups
    first = wilson_clustered(now, names, confidence=confidence)
    return difference(first, wilson_clustered(before, names, confidence=confidence))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for multiplicity (Holm 1979), in the given order; at most 1."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def minimal_detectable_drop(n: float, discordant_share: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest drop of accuracy that the one-sided paired test finds with the given power (normal approximation).

    Args:
        n: number of examples, or the effective one.
        discordant_share: fraction of examples on which the two models differ; at least `1 / n` is assumed.
        alpha: one-sided level.
        power: probability of finding the drop.

    Returns:
        A fraction in (0, 1].

    Raises:
        ValueError: no examples, or a share outside [0, 1].
    """
    if not n > 0 or not 0.0 <= discordant_share <= 1.0:
        raise ValueError(f"n = {n}, discordant share {discordant_share}: need n > 0 and a share in [0, 1]")
    share = max(discordant_share, min(1.0, 1.0 / n))
    return min(1.0, float(ndtri(1.0 - alpha) + ndtri(power)) * math.sqrt(share / n))
