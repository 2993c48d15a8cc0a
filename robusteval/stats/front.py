"""How sure a Pareto front is: the chance of being on it, and what each model adds to it.

A difference of a tenth of a point is enough to dominate, so the front of one sample is itself a random thing. Where
outcomes exist, groups of examples are drawn again, the same ones for all models and columns; where only intervals are
known, values are drawn from normal distributions of that width, independently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from robusteval.stats.pareto import Point, hypervolume

RESAMPLES = 999
_CHUNK = 1 << 22


@dataclass(frozen=True)
class FrontSummary:
    """The front of m models over k columns under resampling.

    Attributes:
        probability: per model, share of resamples in which it is on the front.
        volume: hypervolume of the front of the sample itself.
        low: lower end of the 95 % percentile interval of the hypervolume.
        high: upper end.
    """

    probability: tuple[float, ...]
    volume: float
    low: float
    high: float


@dataclass(frozen=True)
class Panel:
    """Outcomes of all models in one column.

    Attributes:
        right: (m, n) numbers in [0, 1]: outcomes, or their means over training seeds.
        groups: n group names; groups of the same name in two panels are drawn together.
        strata: n names of domains, whose means weigh the same; one stratum if empty.
    """

    right: NDArray[np.floating]
    groups: Sequence[str]
    strata: Sequence[str] = ()


def front_by_outcomes(
    panels: Sequence[Panel], reference: Point, *, resamples: int = RESAMPLES, seed: int = 0
) -> FrontSummary:
    """Resample groups of examples and count how often each model is on the front; larger is better everywhere.

    Args:
        panels: one for each column, models in the same order.
        reference: a point below all models, such as chance level.
        resamples: number of draws.
        seed: seed of the draws.

    Raises:
        ValueError: no panel, or panels with other numbers of models.
    """
    draws = resampled(panels, resamples=resamples, seed=seed)
    whole = [_means(panel, np.ones((1, len(panel.groups)), dtype=np.float32), _places([panel])) for panel in panels]
    return _summary(draws, np.stack(whole, axis=-1)[0], reference)


def resampled(panels: Sequence[Panel], *, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """(b, m, k) values of m models in k columns under draws of groups of examples, the same ones for all of them.

    Args:
        panels: one for each column, models in the same order.
        resamples: number of draws b.
        seed: seed of the draws.

    Raises:
        ValueError: no panel, or panels with other numbers of models.
    """
    if not panels or len({len(panel.right) for panel in panels}) != 1:
        raise ValueError("panels must hold the same models")
    places = _places(panels)
    rng = np.random.default_rng(seed)
    points: list[NDArray[np.float64]] = []
    step = max(1, _CHUNK // max(1, len(places)))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        draws = rng.multinomial(len(places), np.full(len(places), 1.0 / len(places)), size=count).astype(np.float32)
        points.append(np.stack([_means(panel, draws, places) for panel in panels], axis=-1))
    return np.concatenate(points)


def _places(panels: Sequence[Panel]) -> dict[str, int]:
    """Group to its column in a table of draws."""
    return {name: index for index, name in enumerate(sorted({name for panel in panels for name in panel.groups}))}


def front_by_intervals(
    values: ArrayLike, half_widths: ArrayLike, reference: Point, *, resamples: int = RESAMPLES, seed: int = 0
) -> FrontSummary:
    """The same from values and half widths of 95 % intervals, all taken as independent and normal.

    Args:
        values: (m, k) estimates, larger is better.
        half_widths: (m, k) half widths; 0 for a value without noise.
        reference: a point below all models.
        resamples: number of draws.
        seed: seed of the draws.
    """
    centre = np.asarray(values, dtype=np.float64)
    scale = np.asarray(half_widths, dtype=np.float64) / float(ndtri(0.975))
    rng = np.random.default_rng(seed)
    draws = centre + scale * rng.standard_normal((resamples, *centre.shape))
    return _summary(draws, centre, reference)


def contributions(points: ArrayLike, reference: Point) -> tuple[float, ...]:
    """Hypervolume that each model alone adds to that of all; 0 for dominated and for doubled points.

    Args:
        points: (m, k) values, larger is better.
        reference: a point below all models; what does not exceed it adds nothing.
    """
    values = np.asarray(points, dtype=np.float64)
    if values.size == 0:
        return ()
    import moocore

    signed = np.ascontiguousarray(-values)
    low = -np.asarray(reference, dtype=np.float64)
    # With the default, a dominated point would not count as what remains when its dominator is taken away.
    added = moocore.hv_contributions(signed, ref=low, ignore_dominated=False)
    return tuple(max(0.0, float(one)) for one in added)


def _means(panel: Panel, draws: NDArray[np.float32], places: dict[str, int]) -> NDArray[np.float64]:
    """Macro mean of every model (m) under every draw (b): (b, m)."""
    where = np.array([places[name] for name in panel.groups])
    strata = np.asarray(list(panel.strata) or [""] * len(where), dtype=object).astype(str)
    right = panel.right.astype(np.float32, copy=False)
    total = np.zeros((len(draws), len(right)))
    kinds = np.unique(strata)
    for kind in kinds:
        own = np.flatnonzero(strata == kind)
        weights = draws[:, where[own]]
        # A draw that leaves a domain empty says nothing about it; its plain mean stands in.
        empty = weights.sum(axis=1) == 0
        weights[empty] = 1.0
        part = right if len(kinds) == 1 else right[:, own]
        total += (weights @ part.T) / weights.sum(axis=1, keepdims=True)
    return np.asarray(total / len(kinds), dtype=np.float64)


def _summary(draws: NDArray[np.float64], sample: NDArray[np.float64], reference: Point) -> FrontSummary:
    """Counts over (b, m, k) resampled points."""
    import moocore

    up = [True] * sample.shape[1]
    on_front = np.zeros(sample.shape[0])
    volumes = []
    low = -np.asarray(reference, dtype=np.float64)
    for points in draws:
        signed = np.ascontiguousarray(-points)
        on_front += moocore.is_nondominated(signed, maximise=False, keep_weakly=True)
        volumes.append(float(moocore.hypervolume(signed, ref=low, maximise=False)))
    ordered = np.sort(volumes)
    rank = max(0, int(0.025 * (len(draws) + 1)) - 1)
    volume = hypervolume([tuple(point) for point in sample], reference, up)
    ends = (float(ordered[rank]), float(ordered[-1 - rank]))
    return FrontSummary(tuple(float(one) for one in on_front / len(draws)), volume, *ends)
