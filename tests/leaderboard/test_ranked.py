from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from robusteval.leaderboard.entries import Entry
from robusteval.leaderboard.ranked import ranked_document
from robusteval.leaderboard.shelf import Shelf

MakeEntry = Callable[..., Entry]


def test_a_kept_ranking_is_used_until_anything_changes(shelf: Shelf, make_reported: MakeEntry, tmp_path: Path) -> None:
    shelf.add(make_reported("one", a_id=0.5, r_id=0.2))
    cache = tmp_path / "cache"
    first = ranked_document(shelf.folder, cache, many=1)
    assert first == ranked_document(shelf.folder)
    (kept,) = (cache / "boards").iterdir()
    document = json.loads(kept.read_bytes())
    document["ranked"]["problems"] = ["from the cache"]
    kept.write_text(json.dumps(document))
    assert ranked_document(shelf.folder, cache, many=1)["problems"] == ["from the cache"]
    shelf.add(make_reported("two", a_id=0.6, r_id=0.3))
    second = ranked_document(shelf.folder, cache, many=1)
    assert second["problems"] == []
    assert [row[1] for row in second["sections"][0]["rows"]] == ["two", "one"]


def test_a_damaged_or_unwritable_cache_costs_nothing_but_time(
    shelf: Shelf, make_reported: MakeEntry, tmp_path: Path
) -> None:
    shelf.add(make_reported("one", a_id=0.5, r_id=0.2))
    cache = tmp_path / "cache"
    expected = ranked_document(shelf.folder, cache, many=1)
    (kept,) = (cache / "boards").iterdir()
    for damage in ("", "[]", "{}", "\x00"):
        kept.write_text(damage)
        assert ranked_document(shelf.folder, cache, many=1) == expected
    (tmp_path / "file").write_text("")
    assert ranked_document(shelf.folder, tmp_path / "file", many=1) == expected


def test_small_boards_leave_no_file(shelf: Shelf, make_reported: MakeEntry, tmp_path: Path) -> None:
    shelf.add(make_reported("one", a_id=0.5, r_id=0.2))
    ranked_document(shelf.folder, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
