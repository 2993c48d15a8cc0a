"""What the page of one entry shows, as plain values."""

from __future__ import annotations

from typing import Any

from robusteval.leaderboard.beside import agreement
from robusteval.leaderboard.boards import Board
from robusteval.leaderboard.entries import Claims, Entry
from robusteval.leaderboard.ranking import shown_value
from robusteval.leaderboard.site.detail import details, run_command, short


def entry_view(board: Board, entry: Entry, reproduced: Entry | None = None) -> dict[str, Any]:
    """Numbers, claims, records and origin of an entry, and how far it found what the entry it reproduces did."""
    return {
        "agreement": None if reproduced is None else agreement(entry, reproduced),
        "entry": entry,
        "values": [_value(board, key, entry) for key in board.keys if key in entry.columns],
        "claims": _claims(entry.claims),
        "links": [(name, link) for name, link in (("Paper", entry.claims.paper), ("Code", entry.claims.code)) if link],
        "commands": commands(board, entry),
        "details": details(board, entry),
        "fields": _fields(entry),
        "grid": _grid({} if entry.origin is None else entry.origin.cells),
        "digest": entry.digest,
    }


def commands(board: Board, entry: Entry) -> list[str]:
    """Command lines that check an entry, and that measure its numbers again."""
    if entry.suite is None or not entry.measured:
        return []
    rows = dict.fromkeys(run_command(entry, row) for row in entry.rows)
    return [
        f"robusteval submit --check {entry.id}.json --board {board.name}  # recomputes every number, needs no model",
        f"robusteval board verify {entry.id} --board {board.name}  # runs the model on a random sample",
        *(f"{line}  # suite version {entry.suite.version}" for line in rows),
    ]


def _value(board: Board, key: str, entry: Entry) -> dict[str, str]:
    column, value = board.column(key), shown_value(board, key, entry.columns[key])
    scale, unit = (100.0, " %") if column.unit == "accuracy" else (1.0, "")
    ends = (
        "-" if value.low is None or value.high is None else f"{scale * value.low:.2f} to {scale * value.high:.2f}{unit}"
    )
    return {
        "title": column.title,
        "value": f"{scale * value.value:.2f}{unit}",
        "interval": ends,
        "n": "-" if value.n is None else f"{value.n:,}",
        "how": value.interval,
        "written": value.written,
    }


def _claims(claims: Claims) -> list[tuple[str, str]]:
    passes = claims.forward_passes_per_prediction
    listed = [
        ("Authors", claims.authors),
        ("Venue", claims.venue),
        ("Architecture", claims.architecture),
        ("Extra data", {True: "yes", False: "no", None: ""}[claims.extra_data]),
        ("Radius", claims.epsilon),
        ("Passes per prediction", "" if passes is None else str(passes)),
        ("Licence", claims.licence),
        ("Contact", claims.contact),
        ("Footnote", claims.footnote),
    ]
    return [(name, text) for name, text in listed if text]


def _fields(entry: Entry) -> list[tuple[str, str]]:
    if entry.origin is None:
        return []
    return [(name, short(value)) for name, value in sorted(entry.origin.fields.items())]


def _grid(cells: dict[str, str]) -> dict[str, Any] | None:
    """Cells named `fog/3` as a table of rows `fog` and columns `3`."""
    if not cells:
        return None
    names = [(name.partition("/")[0], name.partition("/")[2] or "value") for name in cells]
    columns = sorted({part for _, part in names}, key=lambda part: (len(part), part))
    rows = list(dict.fromkeys(name for name, _ in names))
    text = dict(zip(names, cells.values(), strict=True))
    return {
        "columns": columns,
        "rows": [{"name": row, "cells": [text.get((row, part), "") for part in columns]} for row in rows],
    }
