from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import linregress

from robusteval.stats.trend import bootstrap_lines, least_squares, median_line

XS = st.lists(st.floats(0.05, 0.95), min_size=3, max_size=20, unique=True).filter(lambda x: max(x) - min(x) > 0.05)


@given(XS, st.integers(0, 2**31))
def test_the_line_is_that_of_scipy(x: list[float], seed: int) -> None:
    y = np.random.default_rng(seed).random(len(x))
    line, expected = least_squares(x, y), linregress(x, y)
    assert (line.slope, line.intercept) == pytest.approx((expected.slope, expected.intercept), abs=1e-8)
    assert line.r2 == pytest.approx(expected.rvalue**2, abs=1e-8)


def test_published_logit_fits_give_the_published_predictions() -> None:
    line = least_squares([0.1, 0.9], [0.1, 0.9], "logit")
    assert (line.slope, line.intercept, line.r2) == pytest.approx((1.0, 0.0, 1.0))
    for slope, intercept, x, y in ((0.8318, -0.4736, 0.95, 0.878), (0.9114, -0.4813, 0.7613, 0.640)):
        fitted = type(line)(slope, intercept, 1.0, 10, "logit")
        assert fitted.predict([x])[0] == pytest.approx(y, abs=0.0005)


@pytest.mark.parametrize("scale", ["linear", "logit", "probit"])
def test_points_on_a_line_are_predicted(scale: str) -> None:
    start = least_squares([0.2, 0.8], [0.1, 0.6], scale)  # type: ignore[arg-type]
    x = np.linspace(0.1, 0.9, 9)
    again = least_squares(x, start.predict(x), scale)  # type: ignore[arg-type]
    assert (again.slope, again.intercept, again.r2) == pytest.approx((start.slope, start.intercept, 1.0))


def test_outliers_do_not_move_the_median_line() -> None:
    x = np.linspace(0, 1, 21)
    y = 0.5 * x + 0.1
    y[[3, 15, 20]] += (0.9, -0.7, 0.8)
    assert median_line(x, y).slope == pytest.approx(0.5)
    assert median_line(x, y).intercept == pytest.approx(0.1)
    assert abs(least_squares(x, y).slope - 0.5) > 0.04


def test_certainty_is_held_half_an_example_from_the_ends() -> None:
    line = least_squares([0.0, 0.5, 1.0], [0.0, 0.5, 1.0], "logit", clip=1 / 200)
    assert line.predict([1.0], clip=1 / 200)[0] == pytest.approx(1 - 1 / 200)


def test_what_carries_no_line_is_refused() -> None:
    for x, y in (([0.5], [0.5]), ([0.5, 0.5], [0.1, 0.9])):
        with pytest.raises(ValueError, match="carry no line"):
            least_squares(x, y)
    with pytest.raises(ValueError, match="not pairs"):
        least_squares([1.0, 2.0], [1.0])


def test_resampled_lines_spread_around_the_line() -> None:
    rng = np.random.default_rng(0)
    x = rng.random(40)
    lines = bootstrap_lines(x, 0.7 * x + 0.05 * rng.standard_normal(40), resamples=200)
    slopes = [line.slope for line in lines]
    assert len(lines) == 200
    assert min(slopes) < 0.7 < max(slopes)
