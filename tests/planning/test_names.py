from __future__ import annotations

from pathlib import Path

import pytest

from robusteval.planning.names import find_suite, is_path, packaged_suites, shown_path


def test_packaged_suites_are_found_by_name() -> None:
    assert {"digits", "smoke"} <= set(packaged_suites())
    assert find_suite("digits").name == "digits.yaml"


@pytest.mark.parametrize("text", ["./x", "x.yaml", "x.yml", "a/b", "..\\x", "/x"])
def test_what_ends_in_yaml_or_holds_a_slash_is_a_path(text: str) -> None:
    assert is_path(text)
    assert find_suite(text) == Path(text)


def test_a_path_is_shown_relative_to_where_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "a" / "s.yaml") == "a/s.yaml"
    assert shown_path(tmp_path.parent / "s.yaml") == str(tmp_path.parent / "s.yaml")
    assert shown_path(Path("s.yaml")) == "s.yaml"
