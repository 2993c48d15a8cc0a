"""The ratio of two proportions, with an interval from those of both (Donner and Zou, Stat Methods Med Res 2012).

With estimates x1, x2, their limits (l1, u1), (l2, u2) and the correlation r of the two,

    low  = (c - sqrt(c^2 - l1 u2 (2 x1 - l1) (2 x2 - u2))) / (u2 (2 x2 - u2))    c = x1 x2 - r (x1 - l1) (u2 - x2)
    high = (c + sqrt(c^2 - u1 l2 (2 x1 - u1) (2 x2 - l2))) / (l2 (2 x2 - l2))    c = x1 x2 - r (u1 - x1) (x2 - l2)

so that the ratio inherits limits that stay right near 0 and 1, which a linearised variance does not.
"""

from __future__ import annotations

import math

from robusteval.stats.intervals import ClusteredEstimate, correlation


def ratio(first: ClusteredEstimate, second: ClusteredEstimate) -> tuple[float, float, float] | None:
    """`first / second` with its interval; the two may rest on the same examples, or on examples of the same groups.

    Returns:
        `(value, low, high)`, `high` infinite where the second could be zero; None if it is zero.
    """
    if second.value <= 0.0:
        return None
    together = correlation(first, second)
    x1, x2 = first.value, second.value
    value = x1 / x2
    high = _limit(x1, first.high, x2, second.low, together, 1.0) if second.low > 0.0 else math.inf
    low = _limit(x1, first.low, x2, second.high, together, -1.0)
    return value, max(0.0, min(low, value)), max(high, value)


def _limit(x1: float, end1: float, x2: float, end2: float, together: float, side: float) -> float:
    """One limit from the ends of the two intervals that lie on its side."""
    divisor = end2 * (2.0 * x2 - end2)
    if divisor <= 0.0:
        return 0.0 if side < 0.0 else math.inf
    centre = x1 * x2 - together * abs(end1 - x1) * abs(end2 - x2)
    inside = centre * centre - end1 * end2 * (2.0 * x1 - end1) * (2.0 * x2 - end2)
    return (centre + side * math.sqrt(max(0.0, inside))) / divisor
