from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from robusteval.leaderboard.entries import Entry
from robusteval.leaderboard.shelf import Shelf
from robusteval.schema.digest import ids_digest
from robusteval.schema.errors import CorruptRecordError, DataError

MakeEntry = Callable[..., Entry]


def test_entries_are_added_once_and_never_changed(shelf: Shelf, make_reported: MakeEntry) -> None:
    entry = make_reported("one", a_id=0.5)
    assert shelf.add(entry) == "added"
    assert shelf.add(entry) == "unchanged"
    with pytest.raises(DataError, match="entries are never changed"):
        shelf.add(make_reported("one", a_id=0.6))
    with pytest.raises(DataError, match="by case only"):
        shelf.add(make_reported("ONE", a_id=0.5))
    assert shelf.read().entries == {"one": entry}


def test_a_broken_file_does_not_hide_the_others(shelf: Shelf, make_reported: MakeEntry) -> None:
    shelf.add(make_reported("one", a_id=0.5))
    shelf.path("two").write_text("{")
    shelf.path("three").write_bytes(shelf.path("one").read_bytes())
    contents = shelf.read()
    assert list(contents.entries) == ["one"]
    assert [Path(text.split(":")[0]).name for text in contents.problems] == ["three.json", "two.json"]
    assert "must be called one.json" in contents.problems[0]


def test_a_superseded_entry_stays_and_is_not_active(shelf: Shelf, make_reported: MakeEntry) -> None:
    shelf.add(make_reported("one", a_id=0.5))
    shelf.add(make_reported("two", a_id=0.6).model_copy(update={"supersedes": "one"}))
    contents = shelf.read()
    assert contents.problems == ()
    assert [entry.id for entry in contents.active()] == ["two"]
    assert contents.replaced_by("one") == "two"


def test_references_that_make_no_sense_are_problems(shelf: Shelf, make_reported: MakeEntry) -> None:
    for name, old in (("a", "nobody"), ("b", "c"), ("c", "b"), ("d", "a"), ("e", "a")):
        shelf.add(make_reported(name, a_id=0.5).model_copy(update={"supersedes": old}))
    text = "\n".join(shelf.read().problems)
    assert "supersedes 'nobody', which is not on the board" in text
    assert "supersedes 'a', which 'd' supersedes already" in text
    assert "supersedes itself through" in text


def test_groups_come_back_and_damage_is_noticed(shelf: Shelf) -> None:
    shelf.add_ids(("a/0", "b/0"), ("0", "0"))
    digest = ids_digest(("a/0", "b/0"))
    assert shelf.groups(digest) == ["0", "0"]
    assert shelf.groups("0" * 64) is None
    file = shelf.folder / "ids" / f"{digest}.json"
    file.write_text(file.read_text().replace('"a/0"', '"c/0"'))
    with pytest.raises(CorruptRecordError):
        shelf.groups(digest)
