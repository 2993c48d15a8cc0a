"""A ranked board as text and as data: what the terminal, `board.json` and `board.csv` show."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from robusteval.leaderboard.boards import Board
from robusteval.leaderboard.entries import Entry, Value
from robusteval.leaderboard.ranking import Front, Group, Place, shown_value


def place_text(place: Place) -> str:
    """A rank with the ranks that are possible, such as `2 [2-5]`."""
    if place.rank is None:
        return "-"
    return f"{place.rank} [{place.low}]" if place.low == place.high else f"{place.rank} [{place.low}-{place.high}]"


def ties_text(board: Board, group: Group) -> str:
    """What decided ties, in a sentence."""
    if group.test == "values":
        return "The source gives no intervals, so only equal values tie."
    how = "exact paired tests on the same examples" if group.test == "paired outcomes" else "the intervals shown"
    return (
        f"Ties by {how}, level {board.ties.alpha:g} after Holm's correction; in brackets the ranks that are possible."
    )


def value_text(board: Board, key: str, value: Value | None) -> str:
    """A value with half the width of its interval, in percent for an accuracy."""
    if value is None:
        return "-"
    shown = shown_value(board, key, value)
    scale = 100.0 if board.column(key).unit == "accuracy" else 1.0
    digits = _digits(shown, scale)
    text = f"{scale * shown.value:.{digits}f}"
    if shown.low is None or shown.high is None:
        return text
    return f"{text} ±{scale * (shown.high - shown.low) / 2:.{digits}f}"


def _digits(value: Value, scale: float) -> int:
    """Two digits where somebody published two, one elsewhere."""
    return 2 if value.written and "." in value.written and "±" not in value.written and scale > 0 else 1


def board_document(board: Board, groups: Sequence[Group]) -> dict[str, Any]:
    """Everything about a ranked board as JSON values."""
    return {
        "board": board.name,
        "version": board.version,
        "title": board.title,
        "suite": None if board.suite is None else f"{board.suite.name}@{board.suite.version}",
        "order": list(board.order),
        "columns": [column.model_dump() for column in board.columns],
        "groups": [
            {
                "group": group.name,
                "ties_by": group.test,
                "entries": [_row(board, entry, group.places[entry.id]) for entry in group.entries],
                "fronts": [_front(front) for front in group.fronts],
            }
            for group in groups
        ],
    }


def board_sections(board: Board, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """One table a group for a terminal: `title`, `header`, `rows`, `note`."""
    header = ["rank", "entry", *(column.title for column in board.columns), "flags"]
    sections = []
    for group in groups:
        rows = []
        for entry in group.entries:
            values = [value_text(board, key, entry.columns.get(key)) for key in board.keys]
            rows.append([place_text(group.places[entry.id]), entry.id, *values, ", ".join(entry.flags)])
        title = f"{board.title}: {group.name}"
        sections.append({"title": title, "header": header, "rows": rows, "note": ties_text(board, group)})
    return sections


def _row(board: Board, entry: Entry, place: Place) -> dict[str, Any]:
    values = {}
    for key in board.keys:
        if key in entry.columns:
            shown = shown_value(board, key, entry.columns[key])
            values[key] = shown.model_dump(exclude_defaults=True)
    return {
        "id": entry.id,
        "badge": entry.badge,
        "rank": place.rank,
        "rank_low": place.low,
        "rank_high": place.high,
        "title": entry.claims.title,
        "architecture": entry.claims.architecture,
        "extra_data": entry.claims.extra_data,
        "flags": list(entry.flags),
        "values": values,
    }


def _front(front: Front) -> dict[str, Any]:
    volume, low, high = front.volume
    return {
        "pair": list(front.pair),
        "on": sorted(front.on),
        "probability": dict(sorted(front.probability.items())),
        "contribution": dict(sorted(front.contribution.items())),
        "hypervolume": {"value": volume, "low": low, "high": high},
    }


def board_csv(board: Board, groups: Sequence[Group]) -> str:
    """A ranked board as CSV: one row an entry; a text that a spreadsheet would run as a formula is quoted."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    ends = [f"{key}{part}" for key in board.keys for part in ("", "_low", "_high", "_n")]
    writer.writerow(["group", "rank", "rank_low", "rank_high", "id", "badge", "title", "architecture", *ends, "flags"])
    for group in groups:
        for entry in group.entries:
            place = group.places[entry.id]
            numbers: list[Any] = []
            for key in board.keys:
                value = entry.columns.get(key)
                shown = None if value is None else shown_value(board, key, value)
                numbers += ["", "", "", ""] if shown is None else [shown.value, shown.low, shown.high, shown.n]
            texts = [entry.claims.title, entry.claims.architecture]
            row = [group.name, place.rank, place.low, place.high, entry.id, entry.badge, *map(_harmless, texts)]
            writer.writerow([*row, *numbers, " ".join(entry.flags)])
    return out.getvalue()


def _harmless(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
