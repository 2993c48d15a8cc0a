"""Learning-rate schedules, as functions of the fraction of optimiser steps done. Momentum is never cycled."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "piecewise", "cosine", "cyclic"]
"""A named schedule."""


def scheduled(schedule: Schedule, lr: float, fraction: float) -> float:
    """Learning rate of the step that begins when `fraction` of all steps are done.

    Args:
        schedule: which curve.
        lr: its largest value.
        fraction: in [0, 1].
    """
    if schedule == "constant":
        return lr
    return {"piecewise": piecewise, "cosine": cosine, "cyclic": cyclic}[schedule](lr, fraction)


def piecewise(lr: float, fraction: float) -> float:
    """Divided by 10 from one half of the run on and by 100 from three quarters on (Rice et al., ICML 2020)."""
    if fraction < 0.5:
        return lr
    return lr / 10 if fraction < 0.75 else lr / 100


def cosine(lr: float, fraction: float) -> float:
    """Half a cosine from `lr` down to 0 (Loshchilov and Hutter, ICLR 2017, without restarts)."""
    return lr * (1.0 + math.cos(math.pi * fraction)) / 2.0


def cyclic(lr: float, fraction: float) -> float:
    """One triangle: 0 at the ends, `lr` in the middle (Smith, 2017).

    torch's `CyclicLR` lowers the momentum on the way up unless told not to; here it stays where it is.
    """
    return lr * (1.0 - abs(2.0 * fraction - 1.0))


def slow_start_fast_decay(fraction: float, *, lr_min: float, lr_peak: float, p: float, a: float, kappa: float) -> float:
    """The curve of adversarial fine-tuning (Jeddi et al., 2020, arXiv 2012.13628).

        S(s) = lr_min + (lr_peak - lr_min) * (s / p)^a          for s <= p
        S(s) = lr_peak * exp(-kappa * (s - p) / (1 - p))        for s >  p

    The shape is the paper's; it publishes no constants.

    Args:
        fraction: s, in (0, 1].
        lr_min: value at the start.
        lr_peak: value at p, no less than `lr_min`.
        p: where the peak is, in (0, 1].
        a: power of the rise.
        kappa: logarithm of the ratio of the peak to the last value.
    """
    if fraction < p:
        return lr_min + (lr_peak - lr_min) * math.pow(fraction / p, a)
    if fraction == p:
        return lr_peak
    return lr_peak * math.exp(-kappa * (fraction - p) / (1.0 - p))
