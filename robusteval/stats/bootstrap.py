"""Bootstrap of a mean over groups of examples, for quantities that are not outcomes of 0 or 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

_CHUNK = 1 << 22


@dataclass(frozen=True)
class BootstrapResult:
    """Outcome of a bootstrap.

    Attributes:
        value: mean of the sample.
        low: lower end of the percentile interval.
        high: upper end of the percentile interval.
        p_value: two-sided p-value of the hypothesis that the mean is zero; never 0.
        resamples: number of resamples B.
    """

    value: float
    low: float
    high: float
    p_value: float
    resamples: int


def bootstrap_mean(
    values: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 1999,
    seed: int = 0,
) -> BootstrapResult:
    """Percentile interval and p-value of a mean, drawing whole groups with replacement.

    The interval ends are the k-th smallest and k-th largest of B resampled means with `k = (B + 1) (1 - confidence)
    / 2`, and the p-value is `(k + 1) / (B + 1)` where k counts the resampled deviations from the sample mean that are
    as large as the sample mean itself. For a paired comparison give per-example differences.

    Args:
        values: (n,) numbers.
        groups: n group names; every value stands alone by default.
        confidence: coverage aimed at.
        resamples: B; `(B + 1) (1 - confidence) / 2` should be a whole number.
        seed: seed of the draws; equal seeds give equal results.

    Raises:
        ValueError: no values, lengths that differ, or too few resamples for the confidence.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0 or (groups is not None and len(groups) != sample.size):
        raise ValueError(f"{sample.shape} values need one group each")
    rank = int(np.floor((resamples + 1) * (1.0 - confidence) / 2.0 + 1e-9))
    if rank < 1:
        raise ValueError(f"{resamples} resamples are too few for a {confidence:.0%} interval")
    if groups is None:
        codes = np.arange(sample.size)
    else:
        _, codes = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    sums = np.bincount(codes, weights=sample)
    sizes = np.bincount(codes).astype(np.float64)
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // len(sums))
    parts = []
    for start in range(0, resamples, step):
        drawn = rng.integers(0, len(sums), size=(min(step, resamples - start), len(sums)))
        parts.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    means = np.sort(np.concatenate(parts))
    value = float(sample.mean())
    tolerance = 1e-12 * max(1.0, abs(value))
    extreme = int(np.count_nonzero(np.abs(means - value) >= abs(value) - tolerance))
    return BootstrapResult(
        value, float(means[rank - 1]), float(means[-rank]), (extreme + 1) / (resamples + 1), resamples
    )
