from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from robusteval.leaderboard.entries import BrokenEntryError, Entry, Value, decode_entry, encode_entry, read_json
from robusteval.schema.digest import json_digest

MakeEntry = Callable[..., Entry]


def rewritten(entry: Entry, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The file of an entry after a change to its content, with the digest that fits."""
    content = json.loads(encode_entry(entry))["entry"]
    change(content)
    return json.dumps({"entry": content, "entry_digest": json_digest(content)}).encode()


def test_an_entry_is_written_and_read_back_unchanged(make_entry: MakeEntry, make_reported: MakeEntry) -> None:
    for entry in (make_entry("one"), make_reported("two", "<b>T</b>", a_id=0.5)):
        blob = encode_entry(entry)
        assert decode_entry(blob, "x.json") == entry
        assert encode_entry(decode_entry(blob, "x.json")) == blob


def test_any_changed_byte_of_content_is_noticed(make_reported: MakeEntry) -> None:
    blob = encode_entry(make_reported("two", a_id=0.5))
    with pytest.raises(BrokenEntryError, match="it was changed"):
        decode_entry(blob.replace(b'"50"', b'"51"'), "x.json")


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        (b"", "not an entry"),
        (b"[]", "holds exactly 'entry'"),
        (b'{"entry": 1, "entry_digest": "x"}', "not an entry"),
        (b'{"entry": {}, "entry": {}}', "stands there twice"),
        (b'{"entry": {"a": NaN}, "entry_digest": "x"}', "NaN is not a JSON number"),
        (b'{"entry": {"schema_version": 9}, "entry_digest": "x"}', "written by a newer robusteval"),
        (b"\xff\xfe", "not an entry"),
        (b"[" * 100_000, "not an entry"),
        (b'{"entry": {}, "entry_digest": "x"}', "id: Field required"),
    ],
)
def test_what_is_no_entry_is_named_by_file_and_field(blob: bytes, says: str) -> None:
    with pytest.raises(BrokenEntryError) as caught:
        decode_entry(blob, "x.json")
    assert str(caught.value).startswith("x.json: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["claims"].update(paper="javascript:alert(1)"), "claims.paper"),
        (lambda c: c["claims"].update(title="a\u0007"), "claims.title"),
        (lambda c: c["claims"].update(colour="red"), "claims.colour"),
        (lambda c: c["columns"]["a_id"].update(value="inf"), "columns.a_id.value"),
        (lambda c: c["columns"]["a_id"].update(value=1e999), "columns.a_id.value"),
        (lambda c: c.update(id="../x"), "id"),
        (lambda c: c.update(badge="measured"), "a measured entry has rows and records"),
        (lambda c: c.update(supersedes="two"), "refers to itself"),
        (lambda c: c.pop("origin"), "origin is missing"),
    ],
)
def test_a_field_that_cannot_be_is_named(make_reported: MakeEntry, change: Callable[..., object], says: str) -> None:
    entry = make_reported("two", a_id=0.5)
    content = json.loads(encode_entry(entry))["entry"]
    change(content)
    text = json.dumps(content).replace("Infinity", "1e999")
    with pytest.raises(BrokenEntryError, match=says):
        decode_entry(f'{{"entry": {text}, "entry_digest": "{"0" * 64}"}}'.encode(), "x.json")


def test_a_value_lies_in_its_interval() -> None:
    with pytest.raises(ValidationError, match="not in its interval"):
        Value(value=0.5, low=0.6, high=0.7)
    with pytest.raises(ValidationError, match="come together"):
        Value(value=0.5, low=0.4)


@given(st.binary(max_size=200))
def test_no_bytes_are_an_unexpected_error(blob: bytes) -> None:
    with pytest.raises(BrokenEntryError):
        decode_entry(blob, "x.json")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_strict_json_reads_all_plain_json(value: object) -> None:
    assert read_json(json.dumps(value).encode()) == value
