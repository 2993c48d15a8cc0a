"""Parameters of registered things: checked in one place, refused in one line."""

from __future__ import annotations

from typing import Annotated

import pytest

from robusteval.schema.errors import UsageError
from robusteval.schema.params import LATER, canonical_params, checked_params
from robusteval.schema.types import Epsilon, Frozen, PositiveInt


class Params(Frozen):
    """Parameters of a thing."""

    steps: PositiveInt
    """Steps."""
    epsilon: Epsilon = Epsilon("8/255")
    """Radius."""


def test_defaults_are_filled_in_and_equal_settings_are_equal_in_canonical_form() -> None:
    first = checked_params("thing 'x'", Params, {"steps": 2, "epsilon": "16/510"})
    assert canonical_params(first) == {"steps": 2, "epsilon": "8/255"}
    assert canonical_params(checked_params("thing 'x'", Params, {"steps": 2})) == canonical_params(first)


class Grown(Params):
    """Parameters of the same thing, a version later."""

    mode: Annotated[str, LATER] = "full"
    """Mode."""


def test_a_parameter_that_came_later_is_part_of_the_canonical_form_only_where_it_says_something_new() -> None:
    old = canonical_params(checked_params("thing 'x'", Params, {"steps": 2}))
    assert canonical_params(checked_params("thing 'x'", Grown, {"steps": 2, "mode": "full"})) == old
    assert canonical_params(checked_params("thing 'x'", Grown, {"steps": 2, "mode": "half"})) == old | {"mode": "half"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "thing 'x': parameter 'steps' is missing"),
        ({"steps": 0}, "thing 'x': parameter 'steps' is 0; Input should be greater than 0"),
        ({"steps": 1, "stepz": 2}, "thing 'x': unknown parameter 'stepz'; did you mean 'steps'?"),
        ({"steps": 1, "epsilon": "8/0"}, "thing 'x': parameter 'epsilon' is '8/0'; epsilon '8/0' divides by zero"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(params: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked_params("thing 'x'", Params, params)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_every_wrong_parameter_is_named() -> None:
    with pytest.raises(UsageError, match="'steps' is missing; parameter 'epsilon' is -1"):
        checked_params("thing 'x'", Params, {"epsilon": -1})
