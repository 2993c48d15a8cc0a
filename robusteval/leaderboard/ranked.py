"""A ranked board as a document, kept in a cache folder while nothing about the board changes.

Ranking thousands of entries means unpacking all their outcomes; what comes out depends on the board's files alone, so
it is kept under the digest of their content, and taken only if it is itself what was kept. What ranking needs is
imported when something is ranked, because reading a kept ranking needs none of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from robusteval.schema.digest import sha256_hex
from robusteval.store.atomic import write_atomically

FORMAT = 2
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
    mark = _content_digest(place, files)
    kept = cache / "boards" / f"{sha256_hex(str(place.resolve()).encode())[:32]}.json"
    found = _kept(kept, mark)
    if found is not None:
        return found
    ranked = _rank(place)
    body = json.dumps(ranked).encode()
    if _content_digest(place, files) == mark:  # else somebody wrote an entry while this one ranked
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
            write_atomically(kept, f"{mark} {sha256_hex(body)}\n".encode() + body)
    return ranked


def _kept(path: Path, mark: str) -> dict[str, Any] | None:
    """The ranking in a cache file; None if it is about other content, damaged, or not there."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if head.decode("ascii", "replace") != f"{mark} {sha256_hex(body)}":
        return None
    found: dict[str, Any] = json.loads(body)
    return found


def _rank(place: Path) -> dict[str, Any]:
    from robusteval.leaderboard.boards import load_board
    from robusteval.leaderboard.evidence import Evidence
    from robusteval.leaderboard.ranking import rank_board
    from robusteval.leaderboard.shelf import Shelf
    from robusteval.leaderboard.tables import board_document, board_sections

    board, shelf = load_board(place), Shelf(place)
    contents = shelf.read()
    groups = rank_board(board, contents.active(), Evidence(board, shelf.groups))
    return {
        "document": board_document(board, groups),
        "sections": board_sections(board, groups),
        "problems": list(contents.problems),
    }


def _content_digest(place: Path, files: list[Path]) -> str:
    """SHA-256 over the name and content of every file of a board; an unreadable one counts by its name."""
    digest = hashlib.sha256(f"{FORMAT} {place}".encode())
    for path in (place / "board.yaml", *files):
        blob = b""
        with contextlib.suppress(OSError):
            blob = path.read_bytes()
        digest.update(f"\n{path.relative_to(place).as_posix()} {len(blob)}\n".encode())
        digest.update(blob)
    return digest.hexdigest()
