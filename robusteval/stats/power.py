"""Power of McNemar's one-sided exact test: what a paired check could have seen, and how many examples it would need.

The alternative is stated in two numbers. `churn` is the share of examples that change sides for no reason, half of
them each way; `drop` is what the candidate loses beyond that. So an example becomes wrong with probability
`churn / 2 + drop` and right with `churn / 2`, and the power is taken over the number of examples that change, too.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, gammaln, ndtri, xlog1py, xlogy

_SPREAD = 7.0
"""Counts further than so many standard deviations from their mean are left out; they weigh less than 1e-10."""


def _check(drop: float, churn: float, alpha: float) -> None:
    if not (0.0 < drop <= 1.0 and 0.0 <= churn <= 1.0 and 0.0 < alpha < 1.0):
        raise ValueError(
            f"drop {drop}, churn {churn}, alpha {alpha}: need 0 < drop <= 1, churn in [0, 1], 0 < alpha < 1"
        )


def critical_losses(changed: NDArray[np.int64], alpha: float) -> NDArray[np.int64]:
    """Fewest losses among `changed` examples that McNemar's one-sided exact test rejects; more than all if none do.

    Args:
        changed: numbers of discordant examples, each 0 or more.
        alpha: one-sided level; a p-value below it rejects.
    """
    centre = changed / 2.0 + float(ndtri(1.0 - alpha)) * np.sqrt(changed) / 2.0
    # The normal approximation is off by one or two at most; the exact tail decides among its neighbours.
    losses = np.floor(centre).astype(np.int64)[:, None] + np.arange(-1, 5)[None, :]
    losses = np.clip(losses, 0, changed[:, None] + 1)
    gains = changed[:, None] - losses
    tail = np.where(gains >= 0, bdtr(np.maximum(gains, 0), np.maximum(changed[:, None], 1), 0.5), 0.0)
    tail = np.where((changed[:, None] == 0) & (gains >= 0), 1.0, tail)
    first = np.argmax(tail < alpha, axis=1)
    found: NDArray[np.int64] = losses[np.arange(changed.size), first]
    return found


def mcnemar_power(n: int, drop: float, churn: float, alpha: float = 0.05) -> float:
    """Probability that the one-sided exact test on `n` examples finds a drop.

    Args:
        n: number of independent examples.
        drop: true loss of accuracy, in (0, 1].
        churn: share of examples that change sides besides, in [0, 1]; cut where the two shares would exceed 1.
        alpha: one-sided level.

    Raises:
        ValueError: an argument is out of range.
    """
    _check(drop, churn, alpha)
    if n < 1:
        return 0.0
    gain = min(churn, 1.0 - drop) / 2.0
    share = min(1.0, 2.0 * gain + drop)
    loss = (gain + drop) / share
    half = _SPREAD * math.sqrt(n * share * (1.0 - share)) + 8.0
    changed = np.arange(max(0, math.floor(n * share - half)), min(n, math.ceil(n * share + half)) + 1, dtype=np.int64)
    needed = critical_losses(changed, alpha)
    reachable = needed <= changed
    missed = bdtr(np.maximum(needed - 1, 0), np.maximum(changed, 1), min(1.0, loss))
    seen = np.where(needed <= 0, 1.0, 1.0 - missed)
    weights = _binomial(changed.astype(np.float64), n, share)
    return float(min(1.0, np.sum(np.where(reachable, seen, 0.0) * weights)))


def _binomial(counts: NDArray[np.float64], n: int, share: float) -> NDArray[np.float64]:
    log = gammaln(n + 1.0) - gammaln(counts + 1.0) - gammaln(n - counts + 1.0)
    found: NDArray[np.float64] = np.exp(log + xlogy(counts, share) + xlog1py(n - counts, -share))
    return found


def examples_needed(
    drop: float, churn: float, alpha: float = 0.05, power: float = 0.8, limit: int = 10_000_000
) -> int | None:
    """Number of examples with which the test finds `drop` with `power`; None if `limit` is not enough.

    The exact power is not quite monotonic in `n`; the number is at most a few percent from the smallest one.

    Raises:
        ValueError: an argument is out of range.
    """
    _check(drop, churn, alpha)
    above = max(1, int(_approximate(drop, churn, alpha, power)))
    while mcnemar_power(above, drop, churn, alpha) < power:
        above = above * 5 // 4 + 1
        if above > limit:
            return None
    below = above
    while below > 0 and mcnemar_power(below, drop, churn, alpha) >= power:
        above, below = below, below * 4 // 5
    while above - below > 1:
        middle = (above + below) // 2
        if mcnemar_power(middle, drop, churn, alpha) < power:
            below = middle
        else:
            above = middle
    return above


def _approximate(drop: float, churn: float, alpha: float, power: float) -> float:
    """Examples needed, in the normal approximation."""
    return float(ndtri(1.0 - alpha) + ndtri(power)) ** 2 * min(1.0, churn + drop) / drop**2


def detectable_drop(n: int, churn: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest drop that the test on `n` examples finds with `power`, to 0.01 points; 1 if there is none.

    Raises:
        ValueError: an argument is out of range.
    """
    if mcnemar_power(n, 1.0, churn, alpha) < power:
        return 1.0
    below, above = 0, 1
    while above < 10_000 and mcnemar_power(n, above / 10_000, churn, alpha) < power:
        below, above = above, min(10_000, 4 * above)
    while above - below > 1:
        middle = (above + below) // 2
        if mcnemar_power(n, middle / 10_000, churn, alpha) < power:
            below = middle
        else:
            above = middle
    return above / 10_000
