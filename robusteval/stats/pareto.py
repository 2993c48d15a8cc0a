"""Dominance, fronts and hypervolume over any columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Point = Sequence[float]
"""One value per column."""


def dominates(first: Point, second: Point, maximise: Sequence[bool]) -> bool:
    """Whether `first` is at least as good in every column and better in one; equal points do not dominate."""
    signed = [(a, b) if up else (-a, -b) for a, b, up in zip(first, second, maximise, strict=True)]
    return all(a >= b for a, b in signed) and any(a > b for a, b in signed)


def pareto_front(points: Sequence[Point], maximise: Sequence[bool]) -> list[int]:
    """Indices, in order, of the points that no other point dominates; equal points are all kept.

    Args:
        points: (m, k) finite values.
        maximise: k directions, True where larger is better.

    Raises:
        ValueError: a value is not finite, or a point has another number of columns.
    """
    _check(points, maximise)
    if not points:
        return []
    if not maximise:
        return list(range(len(points)))
    import moocore

    kept = moocore.is_nondominated(_signed(points, maximise), maximise=False, keep_weakly=True)
    return [int(index) for index in np.flatnonzero(kept)]


def hypervolume(points: Sequence[Point], reference: Point, maximise: Sequence[bool]) -> float:
    """Volume between the front and a reference point, such as chance level; points worse than it add nothing.

    Raises:
        ValueError: a value is not finite, or a point has another number of columns.
    """
    _check([*points, reference], maximise)
    if not points:
        return 0.0
    import moocore

    low = _signed([reference], maximise)[0]
    return float(moocore.hypervolume(_signed(points, maximise), ref=low, maximise=False))


def staircase(points: Sequence[tuple[float, float]], corner: tuple[float, float]) -> list[tuple[float, float]]:
    """Corners of the line that bounds what is dominated by `points`, both coordinates being better when larger.

    Args:
        points: (x, y) pairs.
        corner: a point that is worse than all of them, where the line starts (left) and ends (bottom).

    Returns:
        Vertices from the upper left to the lower right; empty without points.
    """
    if not points:
        return []
    front = sorted({points[index] for index in pareto_front(points, (True, True))})
    line = [(corner[0], front[0][1])]
    for index, (x, y) in enumerate(front):
        line.append((x, y))
        below = front[index + 1][1] if index + 1 < len(front) else corner[1]
        line.append((x, below))
    return line


def _signed(points: Sequence[Point], maximise: Sequence[bool]) -> NDArray[np.float64]:
    """The points as columns to minimise, in the memory layout that moocore expects."""
    signs = np.where(np.asarray(maximise, dtype=bool), -1.0, 1.0)
    return np.ascontiguousarray(np.asarray(points, dtype=np.float64) * signs)


def _check(points: Sequence[Point], maximise: Sequence[bool]) -> None:
    for point in points:
        if len(point) != len(maximise):
            raise ValueError(f"point {tuple(point)} has {len(point)} columns, {len(maximise)} directions were given")
        if not all(math.isfinite(value) for value in point):
            raise ValueError(f"point {tuple(point)} is not finite; leave incomplete rows out")
