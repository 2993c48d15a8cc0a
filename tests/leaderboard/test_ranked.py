from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from robusteval.leaderboard.entries import Entry
from robusteval.leaderboard.ranked import ranked_document
from robusteval.leaderboard.shelf import Shelf
from robusteval.schema.digest import sha256_hex

MakeEntry = Callable[..., Entry]


def rewritten(kept: Path, **changes: object) -> None:
    """A cache file with another ranking, as whole as the first one."""
    head, _, body = kept.read_bytes().partition(b"\n")
    other = json.dumps({**json.loads(body), **changes}).encode()
    kept.write_bytes(head.split()[0] + f" {sha256_hex(other)}\n".encode() + other)


def test_a_kept_ranking_is_used_until_the_content_of_anything_changes(
    shelf: Shelf, make_reported: MakeEntry, tmp_path: Path
) -> None:
    shelf.add(make_reported("one", a_id=0.5, r_id=0.2))
    cache = tmp_path / "cache"
    first = ranked_document(shelf.folder, cache, many=1)
    assert first == ranked_document(shelf.folder)
    (kept,) = (cache / "boards").iterdir()
    rewritten(kept, problems=["from the cache"])
    assert ranked_document(shelf.folder, cache, many=1)["problems"] == ["from the cache"]
    path, before = shelf.path("one"), shelf.path("one").stat()
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.6"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert "it was changed" in ranked_document(shelf.folder, cache, many=1)["problems"][0]
    shelf.add(make_reported("two", a_id=0.6, r_id=0.3))
    second = ranked_document(shelf.folder, cache, many=1)
    assert [row[1] for row in second["sections"][0]["rows"]] == ["two"]


def test_a_damaged_or_unwritable_cache_costs_nothing_but_time(
    shelf: Shelf, make_reported: MakeEntry, tmp_path: Path
) -> None:
    shelf.add(make_reported("one", a_id=0.5, r_id=0.2))
    cache = tmp_path / "cache"
    expected = ranked_document(shelf.folder, cache, many=1)
    (kept,) = (cache / "boards").iterdir()
    whole = kept.read_bytes()
    for damage in (b"", b"[]", b"\xff\x00", whole[:-1], whole.replace(b'"one"', b'"two"')):
        kept.write_bytes(damage)
        assert ranked_document(shelf.folder, cache, many=1) == expected
        assert kept.read_bytes() == whole
    (tmp_path / "file").write_text("")
    assert ranked_document(shelf.folder, tmp_path / "file", many=1) == expected


def test_small_boards_leave_no_file(shelf: Shelf, make_reported: MakeEntry, tmp_path: Path) -> None:
    shelf.add(make_reported("one", a_id=0.5, r_id=0.2))
    ranked_document(shelf.folder, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
