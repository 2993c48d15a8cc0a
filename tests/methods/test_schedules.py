from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusteval.methods.schedules import scheduled, slow_start_fast_decay


def curve(fraction: float, **changes: float) -> float:
    constants = {"lr_min": 1e-4, "lr_peak": 0.01, "p": 0.4, "a": 2.0, "kappa": math.log(1000.0), **changes}
    return slow_start_fast_decay(fraction, **constants)


@pytest.mark.parametrize(
    ("schedule", "fraction", "expected"),
    [
        ("constant", 0.99, 0.2),
        ("piecewise", 0.0, 0.2),
        ("piecewise", 0.499, 0.2),
        ("piecewise", 0.5, 0.02),
        ("piecewise", 0.749, 0.02),
        ("piecewise", 0.75, 0.002),
        ("cosine", 0.0, 0.2),
        ("cosine", 0.5, 0.1),
        ("cosine", 1.0, 0.0),
        ("cosine", 1 / 3, 0.15),
        ("cyclic", 0.0, 0.0),
        ("cyclic", 0.25, 0.1),
        ("cyclic", 0.5, 0.2),
        ("cyclic", 0.75, 0.1),
        ("cyclic", 1.0, 0.0),
    ],
)
def test_named_schedules_pass_through_known_points(schedule, fraction, expected):
    assert scheduled(schedule, 0.2, fraction) == pytest.approx(expected, abs=1e-15)


def test_slow_start_fast_decay_passes_through_known_points():
    assert curve(0.2) == pytest.approx(1e-4 + 0.0099 * 0.25)
    assert curve(0.4) == 0.01
    assert curve(0.7) == pytest.approx(0.01 / math.sqrt(1000.0))
    assert curve(1.0) == pytest.approx(0.01 / 1000.0)


@given(st.floats(0.01, 0.99), st.floats(0.2, 5.0), st.floats(0.1, 10.0), st.data())
def test_it_rises_up_to_the_peak_and_falls_after_it(p, a, kappa, data):
    rise = sorted(data.draw(st.lists(st.floats(1e-3, p), min_size=2, max_size=6)))
    fall = sorted(data.draw(st.lists(st.floats(p, 1.0), min_size=2, max_size=6)))
    up = [curve(s, p=p, a=a, kappa=kappa) for s in rise]
    down = [curve(s, p=p, a=a, kappa=kappa) for s in fall]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    assert max(up + down) <= 0.01


def test_without_rise_and_decay_it_is_constant_to_the_bit():
    steps = 7
    assert {curve((i + 1) / steps, p=1 / steps, kappa=0.0) for i in range(steps)} == {0.01}
