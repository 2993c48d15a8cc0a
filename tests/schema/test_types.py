from __future__ import annotations

import pickle
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from robusteval.schema.types import Component, Epsilon, Frozen, Norm, Resources, ThreatModel


class Ball(Frozen):
    epsilon: Epsilon


@pytest.mark.parametrize(
    ("written", "fraction"),
    [
        ("8/255", Fraction(8, 255)),
        ("8 / 255", Fraction(8, 255)),
        ("0.5", Fraction(1, 2)),
        ("1e-3", Fraction(1, 1000)),
        (0.1, Fraction(1, 10)),
        (1, Fraction(1)),
        (0, Fraction(0)),
    ],
)
def test_epsilon_is_the_exact_fraction_that_was_written(written: str | float, fraction: Fraction) -> None:
    assert Epsilon(written).fraction == fraction


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("8/0", "divides by zero"),
        ("-8/255", "negative"),
        (-0.1, "negative"),
        ("nan", "not a number"),
        (float("nan"), "not a finite number"),
        (float("inf"), "not a finite number"),
        ("inf", "not a number"),
        (True, "not a finite number"),
        ("eight", "not a number"),
        ("", "not a number"),
        ("1" * 41, "longer than 40"),
        ("1e30", "larger than a million"),
        ([8, 255], "must be a number"),
        (None, "must be a number"),
    ],
)
def test_what_is_no_radius_is_refused_with_what_is_valid(written: object, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Ball(epsilon=written)  # type: ignore[arg-type]


def test_a_huge_exponent_is_refused_without_writing_the_number_out() -> None:
    for text in ("1e999999999", "1E-999999999"):
        with pytest.raises(ValueError, match="exponent beyond 99"):
            Epsilon(text)


def test_equal_fractions_are_equal_epsilons_with_one_canonical_form() -> None:
    first, second = Ball(epsilon=Epsilon("16/510")), Ball(epsilon=Epsilon("8/255"))
    assert first.epsilon == second.epsilon
    assert hash(first.epsilon) == hash(second.epsilon)
    assert first.model_dump(mode="json") == {"epsilon": "16/510"}
    assert first.model_dump(mode="json", context={"canonical": True}) == {"epsilon": "8/255"}


@given(st.fractions(min_value=0, max_value=1000, max_denominator=10**6))
def test_epsilon_survives_json_and_pickle(fraction: Fraction) -> None:
    ball = Ball(epsilon=Epsilon(fraction))
    assert Ball.model_validate_json(ball.model_dump_json()) == ball
    assert pickle.loads(pickle.dumps(ball.epsilon)) == ball.epsilon
    assert float(ball.epsilon) == float(fraction)


def test_epsilon_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        Epsilon("8/255").text = "9/255"


def test_models_are_closed_and_frozen() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Component(name="pgd", parameters={})  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="frozen"):
        Component(name="pgd").name = "fgsm"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="finite"):
        Resources(gpus=float("nan"))


def test_a_threat_model_prints_as_written() -> None:
    assert str(ThreatModel(norm=Norm.L2, epsilon=Epsilon("128/255"))) == "l2-128/255"
