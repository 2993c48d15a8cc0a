"""A ranked board as a document, kept in a cache folder while nothing about the board changes.

Ranking thousands of entries means unpacking all their outcomes; what comes out depends on the board's files alone, so
it is kept until the size, the time of change or the place on disk of one of them differs.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from robusteval.leaderboard.boards import load_board
from robusteval.leaderboard.evidence import Evidence
from robusteval.leaderboard.ranking import rank_board
from robusteval.leaderboard.shelf import Shelf
from robusteval.leaderboard.tables import board_document, board_sections
from robusteval.schema.digest import json_digest, sha256_hex
from robusteval.store.atomic import write_atomically

FORMAT = 1
"""Raised when ranks or their document change with the code."""
MANY = 200
"""Fewest entries for which the cache is worth a file."""


def ranked_document(place: Path, cache: Path | None = None, many: int = MANY) -> dict[str, Any]:
    """Rank a board, or take the ranking from the cache.

    Args:
        place: folder of the board.
        cache: folder of rankings; nothing is kept without it.
        many: fewest entries for which the cache is used.

    Returns:
        `document` as in `board.json`, `sections` for a terminal, and `problems` with files that cannot be read.

    Raises:
        SourceError: the board file is wrong.
    """
    files = sorted([*(place / "entries").glob("*.json"), *(place / "ids").glob("*.json")])
    if cache is None or len(files) < many:
        return _rank(place)
    load_board(place)
    mark = _fingerprint(place, files)
    kept = cache / "boards" / f"{sha256_hex(str(place.resolve()).encode())[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(kept.read_bytes())
        if found["mark"] == mark:
            ranked: dict[str, Any] = found["ranked"]
            return ranked
    ranked = _rank(place)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
        write_atomically(kept, json.dumps({"mark": mark, "ranked": ranked}).encode())
    return ranked


def _rank(place: Path) -> dict[str, Any]:
    board, shelf = load_board(place), Shelf(place)
    contents = shelf.read()
    groups = rank_board(board, contents.active(), Evidence(board, shelf.groups))
    return {
        "document": board_document(board, groups),
        "sections": board_sections(board, groups),
        "problems": list(contents.problems),
    }


def _fingerprint(place: Path, files: list[Path]) -> str:
    marks = []
    for path in (place / "board.yaml", *files):
        found = path.stat()
        marks.append([path.name, found.st_size, str(found.st_mtime_ns), found.st_ino])
    return json_digest([FORMAT, str(place), marks])
