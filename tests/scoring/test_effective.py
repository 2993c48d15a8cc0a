from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from robusteval.scoring.effective import effective_robustness, fit_trend

AXES = {
    "r_ood": ("id_robust", "ood_dataset_robust"),
    "r_unseen": ("id_robust", "ood_threat_robust"),
    "a_ood": ("id_clean", "ood_dataset_clean"),
}
PUBLISHED = {
    ("cifar10", "Linf"): {
        "r_ood": (0.722, -5.89, 0.967),
        "r_unseen": (0.432, 6.45, 0.406),
        "a_ood": (1.105, -27.18, 0.981),
    },
    ("cifar10", "L2"): {
        "r_ood": (0.880, -14.16, 0.988),
        "r_unseen": (1.007, -48.25, 0.882),
        "a_ood": (1.238, -38.45, 0.989),
    },
    ("imagenet", "Linf"): {
        "r_ood": (0.490, -6.12, 0.972),
        "r_unseen": (0.578, -4.31, 0.970),
        "a_ood": (0.993, -33.73, 0.948),
    },
}


def line(n: int = 20, noise: float = 0.002) -> dict[str, tuple[float, float]]:
    rng = np.random.default_rng(0)
    return {
        f"m{index}": (x, 0.8 * x - 0.05 + noise * rng.standard_normal())
        for index, x in enumerate(np.linspace(0.3, 0.9, n))
    }


def test_a_model_above_the_line_has_the_distance_as_effective_robustness() -> None:
    reference = line()
    trend = fit_trend(("a_id", "a_ood"), reference, "linear")
    assert (trend.slope, trend.intercept) == pytest.approx((0.8, -0.05), abs=0.01)
    (above, on) = effective_robustness(trend, reference, {"above": (0.6, 0.53), "on": (0.6, 0.43)}, examples=10_000)
    assert above.rho == pytest.approx(0.1, abs=0.002)
    assert above.low > 0.05
    assert above.outlier
    assert on.low < 0 < on.high


def test_fewer_examples_make_the_interval_wider() -> None:
    reference = line()
    trend = fit_trend(("a_id", "a_ood"), reference)
    widths = [
        (found.high - found.low)
        for n in (100, 10_000, None)
        for found in effective_robustness(trend, reference, {"x": (0.6, 0.5)}, examples=n)
    ]
    assert widths[0] > 3 * widths[1] > 3 * widths[2] > 0


def test_a_line_that_predicts_nothing_gives_no_distances() -> None:
    few = fit_trend(("x", "y"), line(9))
    assert "9 reference models" in few.refused
    rng = np.random.default_rng(1)
    noise = {f"m{index}": (float(rng.random()), float(rng.random())) for index in range(30)}
    vague = fit_trend(("x", "y"), noise)
    assert "R2 is" in vague.refused
    assert effective_robustness(vague, noise, noise) == []


@pytest.mark.shared
@pytest.mark.parametrize("board", PUBLISHED)
@pytest.mark.parametrize("column", AXES)
def test_published_fits_are_reproduced(shared: Path, board: tuple[str, str], column: str) -> None:
    with (shared / "data" / "results" / "oodrobustbench.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["dataset"], row["threat"]) == board]
    x, y = AXES[column]
    points = {str(index): (float(row[x]) / 100, float(row[y]) / 100) for index, row in enumerate(rows)}
    trend = fit_trend((x, y), points, "linear")
    slope, intercept, r2 = PUBLISHED[board][column]
    assert trend.slope == pytest.approx(slope, abs=0.0006)
    assert 100 * trend.intercept == pytest.approx(intercept, abs=0.006)
    assert trend.r2 == pytest.approx(r2, abs=0.0006)
    assert trend.r2_low <= trend.r2 <= trend.r2_high
    if (board, column) == (("cifar10", "Linf"), "r_unseen"):
        assert "R2 is 0.41" in trend.refused
