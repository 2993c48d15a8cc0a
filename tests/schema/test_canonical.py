"""The fast way to canonical JSON writes the bytes of RFC 8785."""

from __future__ import annotations

import math

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from robusteval.schema.digest import canonical_json

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


@given(VALUES)
def test_any_json_value_is_written_as_the_reference_writes_it(value: object) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value",
    [
        0.0,
        -0.0,
        1.0,
        1e-4,
        0.00009999,
        1e-6,
        1e-7,
        1e15,
        1e16,
        123456789012345.6,
        0.1 + 0.2,
        2.0**53,
        '\x7f\x1f\n"\\/',
        -0,
    ],
)
def test_numbers_and_strings_at_the_edges_are_written_alike(value: object) -> None:
    assert canonical_json({"b": value, "a": [value], "": value}) == rfc8785.dumps({"b": value, "a": [value], "": value})


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**53, [1.5, -math.inf]])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"representable|exceeds"):
        canonical_json(value)
