from __future__ import annotations

import hashlib

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from robusteval.schema.digest import canonical_json, ids_digest, json_digest, pack_bits, stable_int, unpack_bits

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_canonical_json_of_the_rfc_example() -> None:
    value = {"peach": "x", "péché": 1e30, "a": [56, {"d": True, "10": None}], "€": 4.50}
    assert canonical_json(value).decode() == '{"a":[56,{"10":null,"d":true}],"peach":"x","péché":1e+30,"€":4.5}'


def test_json_digest_is_the_sha256_of_the_canonical_text() -> None:
    assert json_digest({"b": 1, "a": 2}) == hashlib.sha256(b'{"a":2,"b":1}').hexdigest()


@given(st.dictionaries(st.text(), JSON, min_size=2, max_size=5))
def test_key_order_does_not_change_a_digest(value: dict[str, object]) -> None:
    assert json_digest(value) == json_digest(dict(reversed(list(value.items()))))


@given(JSON | st.lists(st.integers(-(2**60), 2**60).map(float)))
def test_canonical_json_is_that_of_the_reference(value: object) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_cannot_hold_are_refused(value: float) -> None:
    with pytest.raises(ValueError):
        json_digest({"x": value})


def test_the_order_of_ids_counts() -> None:
    assert ids_digest(["a", "b"]) != ids_digest(["b", "a"])


@given(st.lists(st.booleans(), max_size=70))
def test_bits_come_back_as_they_were_packed(flags: list[bool]) -> None:
    assert unpack_bits(pack_bits(flags), len(flags)) == flags


def test_the_first_flag_is_the_highest_bit() -> None:
    assert pack_bits([True] + [False] * 7) == "gA=="


@pytest.mark.parametrize(("text", "n"), [("gA==", 9), ("gA==", 0), ("AQ==", 7), ("not base64!", 8), ("", 1)])
def test_bits_that_do_not_fit_are_refused(text: str, n: int) -> None:
    with pytest.raises(ValueError):
        unpack_bits(text, n)


def test_stable_int_is_pinned_because_stored_noise_depends_on_it() -> None:
    digest = hashlib.sha256(b"example\x1fimage-1").digest()
    assert stable_int("example", "image-1") == int.from_bytes(digest[:8], "big") >> 1
    assert 0 <= stable_int("a", 1, bits=8) < 256
