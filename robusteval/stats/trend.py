"""Straight lines through models: least squares, Theil and Sen's median line, and how well they hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import theilslopes

Scale = Literal["linear", "logit", "probit"]
"""How accuracies are stretched before a line is fitted (Taori et al. 2020: logit; Miller et al. 2021: probit)."""


@dataclass(frozen=True)
class Line:
    """A line y = slope x + intercept on stretched accuracies.

    Attributes:
        slope: slope.
        intercept: intercept.
        r2: share of the variance of y that it explains; 1 if y does not vary.
        n: models it was fitted to.
        scale: how accuracies were stretched.
    """

    slope: float
    intercept: float
    r2: float
    n: int
    scale: Scale

    def predict(self, x: ArrayLike, clip: float = 1e-6) -> NDArray[np.float64]:
        """Value of y that the line gives for accuracies x, which are clipped to [clip, 1 - clip] before stretching."""
        forward, back = _SCALES[self.scale]
        held = np.asarray(x, dtype=np.float64)
        if self.scale != "linear":
            held = np.clip(held, clip, 1.0 - clip)
        return np.asarray(back(self.slope * forward(held) + self.intercept), dtype=np.float64)


def _same(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values


_Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]
_SCALES: dict[str, tuple[_Curve, _Curve]] = {"linear": (_same, _same), "logit": (logit, expit), "probit": (ndtri, ndtr)}


def least_squares(x: ArrayLike, y: ArrayLike, scale: Scale = "linear", clip: float = 1e-6) -> Line:
    """Least-squares line of y on x.

    Args:
        x: n accuracies, or any numbers on the linear scale.
        y: n accuracies.
        scale: how both are stretched.
        clip: distance from 0 and 1 to which accuracies are held before stretching, such as 1 / (2 examples).

    Raises:
        ValueError: fewer than two points, or x does not vary.
    """
    left, right = _stretched(x, y, scale, clip)
    centred = left - left.mean()
    spread = float(centred @ centred)
    if left.size < 2 or spread == 0.0:
        raise ValueError(f"{left.size} points with {len(set(left.tolist()))} different x carry no line")
    slope = float(centred @ right) / spread
    intercept = float(right.mean()) - slope * float(left.mean())
    rest = right - slope * left - intercept
    total = right - right.mean()
    variance = float(total @ total)
    r2 = 1.0 - float(rest @ rest) / variance if variance > 0.0 else 1.0
    return Line(slope, intercept, r2, left.size, scale)


def median_line(x: ArrayLike, y: ArrayLike, scale: Scale = "linear", clip: float = 1e-6) -> Line:
    """Theil and Sen's line: the median of all pairwise slopes; a quarter of the points may be outliers."""
    left, right = _stretched(x, y, scale, clip)
    found = theilslopes(right, left)
    slope, intercept = float(found.slope), float(found.intercept)
    total = right - right.mean()
    rest = right - slope * left - intercept
    variance = float(total @ total)
    return Line(slope, intercept, 1.0 - float(rest @ rest) / variance if variance > 0.0 else 1.0, left.size, scale)


def bootstrap_lines(
    x: ArrayLike, y: ArrayLike, scale: Scale = "linear", clip: float = 1e-6, *, resamples: int = 999, seed: int = 0
) -> list[Line]:
    """Lines through models drawn with replacement; draws in which x does not vary are left out."""
    left, right = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    rng = np.random.default_rng(seed)
    lines = []
    for chosen in rng.integers(0, left.size, size=(resamples, left.size)):
        if np.ptp(left[chosen]) > 0.0:
            lines.append(least_squares(left[chosen], right[chosen], scale, clip))
    return lines


def _stretched(
    x: ArrayLike, y: ArrayLike, scale: Scale, clip: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    left, right = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1:
        raise ValueError(f"{left.shape} and {right.shape} are not pairs of numbers")
    if scale != "linear":
        left, right = np.clip(left, clip, 1.0 - clip), np.clip(right, clip, 1.0 - clip)
    forward, _ = _SCALES[scale]
    return np.asarray(forward(left), dtype=np.float64), np.asarray(forward(right), dtype=np.float64)
