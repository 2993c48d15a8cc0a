"""The score interval of a difference of two paired proportions (Tango, Statistics in Medicine 1998).

Unlike intervals from estimated variances it stays honest where few or no examples change sides: with no change among n
examples it reaches `z^2 / (n + z^2)` to both sides instead of shrinking to a point.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import ndtri

_EDGE = 1e-9


def paired_score_interval(value: float, churn: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of candidate minus base accuracy on the same examples.

    Args:
        value: observed difference, in [-1, 1].
        churn: share of examples that changed sides, in [0, 1]; at least the size of `value` is assumed.
        n: number of examples, or the effective one.
        confidence: coverage aimed at.

    Returns:
        `(low, high)` in [-1, 1]; it contains `value`.

    Raises:
        ValueError: an argument is out of range.
    """
    if not (n > 0 and -1.0 <= value <= 1.0 and 0.0 <= churn <= 1.0 and 0.0 < confidence < 1.0):
        raise ValueError(f"difference {value}, churn {churn}, n {n}, confidence {confidence} are not a paired result")
    churn = max(churn, abs(value))
    gains, losses = n * (churn + value) / 2.0, n * (churn - value) / 2.0
    z = float(ndtri((1.0 + confidence) / 2.0))

    def distance(delta: float) -> float:
        return _score(gains, losses, n, delta)

    low = -1.0 if distance(-1.0 + _EDGE) < z else float(brentq(lambda delta: distance(delta) - z, -1.0 + _EDGE, value))
    high = 1.0 if distance(1.0 - _EDGE) > -z else float(brentq(lambda delta: distance(delta) + z, value, 1.0 - _EDGE))
    return min(low, value), max(high, value)


def _score(gains: float, losses: float, n: float, delta: float) -> float:
    """Standardised distance of the observed difference from `delta`, with the variance that `delta` implies."""
    # Maximum likelihood of the probability of a loss, given that gains are more likely by delta.
    a, b, c = 2.0 * n, -gains - losses + (2.0 * n - gains + losses) * delta, -losses * delta * (1.0 - delta)
    loss = (math.sqrt(max(0.0, b * b - 4.0 * a * c)) - b) / (2.0 * a)
    variance = n * (2.0 * loss + delta * (1.0 - delta))
    shift = gains - losses - n * delta
    if variance <= 0.0:
        return 0.0 if shift == 0.0 else math.copysign(math.inf, shift)
    return shift / math.sqrt(variance)
