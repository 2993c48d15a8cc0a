"""Effective robustness: what a model keeps out of distribution beyond what its accuracy in distribution predicts.

A line is fitted through reference models on stretched accuracies (Taori et al., NeurIPS 2020: logit; Miller et al.,
ICML 2021: probit), and rho is a model's distance from it. With clean accuracies that is `rho`; with robust ones,
`rho_adv` (the idea of OODRobustBench, ICML 2024); with clean OOD accuracy as x and robust OOD accuracy as y,
`rho_cross`: robustness beyond what clean accuracy under the same shift explains.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from robusteval.schema.types import Frozen, NonNegativeInt
from robusteval.stats.trend import Line, Scale, bootstrap_lines, least_squares, median_line

MIN_MODELS = 10
"""Fewest reference models that carry a line."""
DRAWS = 499
"""Bootstrap draws behind the interval of a distance."""
MIN_R2 = 0.5
"""Least share of variance that a line must explain before distances from it mean anything."""


class Trend(Frozen):
    """A fitted line with its doubts."""

    x: str
    """Column of x."""
    y: str
    """Column of y."""
    scale: Scale
    """How accuracies were stretched."""
    n: NonNegativeInt
    """Reference models."""
    slope: float
    """Slope of the least-squares line."""
    intercept: float
    """Its intercept; in accuracy, not percent, on the linear scale."""
    r2: float
    """Share of the variance it explains."""
    r2_low: float
    """Lower end of the 95 % bootstrap interval of R2, models drawn with replacement."""
    r2_high: float
    """Upper end."""
    median_slope: float
    """Slope of Theil and Sen's line, which outliers do not move."""
    median_intercept: float
    """Its intercept."""
    refused: str = ""
    """Why distances from the line are not given; empty if they are."""


class Effective(Frozen):
    """Distance of one model from a line."""

    model: str
    """Name."""
    rho: float
    """Measured minus predicted accuracy."""
    low: float
    """Lower end of the 95 % interval: other reference models, and the noise of the model's own two accuracies."""
    high: float
    """Upper end."""
    outlier: bool
    """Whether it lies more than three robust standard deviations from the line: a result to look into."""


def fit_trend(
    names: tuple[str, str],
    points: Mapping[str, tuple[float, float]],
    scale: Scale = "logit",
    examples: int | None = None,
) -> Trend:
    """Fit the line of y on x through reference models.

    Args:
        names: columns of x and y, for display.
        points: model to its two accuracies in [0, 1].
        scale: how they are stretched.
        examples: examples behind each accuracy; holds accuracies of 0 and 1 at half an example from there.

    Raises:
        ValueError: fewer than two models, or x does not vary.
    """
    x, y = _columns(points)
    clip = _clip(examples)
    line, robust = least_squares(x, y, scale, clip), median_line(x, y, scale, clip)
    r2 = [one.r2 for one in bootstrap_lines(x, y, scale, clip)] or [line.r2]
    low, high = np.quantile(r2, (0.025, 0.975))
    refused = ""
    if line.n < MIN_MODELS:
        refused = f"{line.n} reference models; a line needs {MIN_MODELS}"
    elif line.r2 < MIN_R2:
        refused = f"R2 is {line.r2:.2f}; a line that explains less than {MIN_R2:g} predicts nothing"
    return Trend(
        x=names[0],
        y=names[1],
        scale=scale,
        n=line.n,
        slope=line.slope,
        intercept=line.intercept,
        r2=line.r2,
        r2_low=float(low),
        r2_high=float(high),
        median_slope=robust.slope,
        median_intercept=robust.intercept,
        refused=refused,
    )


def effective_robustness(
    trend: Trend,
    reference: Mapping[str, tuple[float, float]],
    models: Mapping[str, tuple[float, float]],
    examples: int | None = None,
    seed: int = 0,
    drawn: NDArray[np.float64] | None = None,
) -> list[Effective]:
    """Distances of models from the line of reference models; none if the line was refused.

    Args:
        trend: the line of `reference`.
        reference: models the line was fitted to.
        models: models to judge, which may be among them.
        examples: examples behind each accuracy; without it only the noise of the line enters the interval.
        seed: seed of the draws.
        drawn: (b, m, 2) accuracies of the models under b draws of their examples, the same ones for both columns and
            all models, which takes the place of `examples`.
    """
    if trend.refused or not models:
        return []
    x, y = _columns(reference)
    clip = _clip(examples)
    line = _line(trend)
    lines = bootstrap_lines(x, y, trend.scale, clip, resamples=DRAWS, seed=seed)
    rests = y - line.predict(x, clip)
    spread = 1.4826 * float(np.median(np.abs(rests - np.median(rests))))
    own = np.stack(_columns(models), axis=1)
    rho = own[:, 1] - line.predict(own[:, 0], clip)
    noisy = _noisy(own, examples, seed) if drawn is None else drawn
    found = [
        noisy[i % len(noisy), :, 1] - other.predict(noisy[i % len(noisy), :, 0], clip) for i, other in enumerate(lines)
    ]
    ends = np.quantile(found, (0.025, 0.975), axis=0) if found else np.stack([rho, rho])
    return [
        Effective(
            model=name,
            rho=float(one),
            low=min(float(one), float(low)),
            high=max(float(one), float(high)),
            outlier=bool(spread > 0.0 and abs(one) > 3.0 * spread),
        )
        for name, one, low, high in zip(models, rho, *ends, strict=True)
    ]


def _noisy(values: NDArray[np.float64], examples: int | None, seed: int) -> NDArray[np.float64]:
    """(b, m, 2) accuracies as other examples would give them, each column and model by itself."""
    if examples is None:
        return values[np.newaxis]
    rng = np.random.default_rng(seed + 1)
    return rng.binomial(examples, values, size=(DRAWS, *values.shape)) / examples


def _columns(points: Mapping[str, tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(list(points.values()), dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _clip(examples: int | None) -> float:
    return 1e-6 if examples is None else 1.0 / (2.0 * examples)


def _line(trend: Trend) -> Line:
    return Line(trend.slope, trend.intercept, trend.r2, trend.n, trend.scale)
