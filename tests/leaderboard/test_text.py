from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from robusteval.leaderboard.text import MAX_LINE, Line, Link, cleaned, is_web_link, stem_of
from robusteval.schema.types import Name

ANY_TEXT = st.text(alphabet=st.characters(), max_size=300)


@given(ANY_TEXT)
def test_every_cleaned_text_is_a_line(text: str) -> None:
    line = cleaned(text)
    assert TypeAdapter(Line).validate_python(line) == line
    assert "\n" not in line


@given(ANY_TEXT)
def test_every_id_is_a_file_name_that_stays_in_its_folder(text: str) -> None:
    stem = stem_of(text)
    assert TypeAdapter(Name).validate_python(stem) == stem
    assert stem_of(stem) == stem


def test_an_id_that_is_one_already_is_kept() -> None:
    assert stem_of("Wang2023Better_WRN-70-16") == "Wang2023Better_WRN-70-16"
    assert stem_of("../../etc/passwd") == "etc-passwd"
    assert stem_of("été <b>") == "ete-b"


@pytest.mark.parametrize("text", ["a\x00b", "a\nb", "a\u202eb", "a\x85b", "x" * (MAX_LINE + 1)])
def test_a_line_refuses_what_no_reader_should_meet(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Line).validate_python(text)


@pytest.mark.parametrize(
    "text",
    ["javascript:alert(1)", "data:text/html,x", "//host/x", "http:", "https://a b", 'https://a"onclick=x', "ftp://a/b"],
)
def test_only_web_addresses_are_links(text: str) -> None:
    assert not is_web_link(text)
    with pytest.raises(ValidationError):
        TypeAdapter(Link).validate_python(text)


def test_web_addresses_and_nothing_are_links() -> None:
    for text in ("https://arxiv.org/abs/2404.09349", "http://example.org/a?b=c#d", ""):
        assert TypeAdapter(Link).validate_python(text) == text


def test_tags_are_taken_out_of_foreign_text() -> None:
    assert cleaned("uses <b>300M</b>\nimages<br/>") == "uses 300M images"
    assert not re.search("[<>]", cleaned("<script>alert(1)</script>"))
