"""What the page of one entry shows, as plain values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from robusteval.leaderboard.beside import agreement
from robusteval.leaderboard.boards import Board
from robusteval.leaderboard.entries import Claims, Entry
from robusteval.leaderboard.evidence import unpacked
from robusteval.leaderboard.ranking import shown_value
from robusteval.schema.cells import EvalCell
from robusteval.schema.plans import RowSeed
from robusteval.schema.records import ResultRecord
from robusteval.schema.specs import CELLS
from robusteval.stats.intervals import wilson

_MOST = 2000
"""Most characters of one raw field on the page; the entry file has all of it."""


def entry_view(board: Board, entry: Entry, reproduced: Entry | None = None) -> dict[str, Any]:
    """Numbers, claims, records and origin of an entry, and how far it found what the entry it reproduces did."""
    return {
        "agreement": None if reproduced is None else agreement(entry, reproduced),
        "entry": entry,
        "values": [_value(board, key, entry) for key in board.keys if key in entry.columns],
        "claims": _claims(entry.claims),
        "links": [(name, link) for name, link in (("Paper", entry.claims.paper), ("Code", entry.claims.code)) if link],
        "commands": commands(entry),
        "records": list(_records(entry)),
        "fields": _fields(entry),
        "grid": _grid({} if entry.origin is None else entry.origin.cells),
        "digest": entry.digest,
    }


def commands(entry: Entry) -> list[str]:
    """Command lines that measure the cells of an entry again."""
    if entry.suite is None or not entry.measured:
        return []
    if any(row.train_key is None for row in entry.rows):
        return [
            f"robusteval eval MODEL --suite {entry.suite.name}  # version {entry.suite.version}, MODEL: its weights"
        ]
    return [
        f"robusteval run {entry.suite.name} --only method={row.method},seed={row.seed}  # version {entry.suite.version}"
        for row in entry.rows
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


def _records(entry: Entry) -> Iterator[dict[str, Any]]:
    by_key = {record.cell_key: record for record in entry.records}
    for row in entry.rows:
        for role, key in sorted(row.cells.items(), key=_role_order):
            record = by_key.get(key)
            if record is not None and record.evaluation is not None:
                yield _record(row, role, record)


def _role_order(item: tuple[str, str]) -> tuple[int, str]:
    """Roles in the order of the four accuracies."""
    column = item[0].partition("@")[0]
    return next((place for place, name in enumerate(CELLS) if name == column), len(CELLS)), item[0]


def _record(row: RowSeed, role: str, record: ResultRecord) -> dict[str, Any]:
    evaluation, cell = record.evaluation, record.cell
    assert evaluation is not None
    n = max(1, cell.data.n)
    domains = [name for name, _ in evaluation.domains]
    outcomes = []
    for name, packed in sorted(evaluation.outcomes.items(), key=lambda item: (item[0] != "clean", item[0] == "robust")):
        flags, start, cells = unpacked(packed), 0, []
        for _, count in evaluation.domains:
            cells.append(_share(int(flags[start : start + count].sum()), count))
            start += count
        outcomes.append({"name": name, "cells": [*cells, _share(int(flags.sum()), len(flags))]})
    provenance = record.provenance
    threat = str(cell.threat) if isinstance(cell, EvalCell) and cell.threat is not None else "none"
    evaluator = f"{cell.evaluator.name}, protocol {cell.protocol}" if isinstance(cell, EvalCell) else ""
    facts = [
        ("Cell", record.cell_key),
        ("Result", record.result_digest),
        ("Threat model", threat),
        ("Evaluator", evaluator),
        ("Parameters", _short(cell.evaluator.params) if isinstance(cell, EvalCell) else ""),
        ("Data", f"{cell.data.dataset.name}, {cell.data.split}, n={cell.data.n:,}, ids {cell.data.ids_digest[:12]}"),
        (
            "Passes per example",
            f"{evaluation.budget.forward / n:.1f} forward, {evaluation.budget.backward / n:.1f} backward",
        ),
        ("Measured", f"{record.timing.started_at}, {record.timing.wall_s:.1f} s, {provenance.device}"),
        ("Software", f"robusteval {provenance.robusteval_version}, commit {provenance.git_commit or 'unknown'}"),
    ]
    return {
        "heading": f"{role}, seed {row.seed}",
        "facts": [(name, text) for name, text in facts if text],
        "domains": domains,
        "outcomes": outcomes,
        "flags": evaluation.flags,
    }


def _share(right: int, n: int) -> str:
    if n == 0:
        return "-"
    low, high = wilson(right, n)
    return f"{100 * right / n:.1f} ±{50 * (high - low):.1f}"


def _fields(entry: Entry) -> list[tuple[str, str]]:
    if entry.origin is None:
        return []
    return [(name, _short(value)) for name, value in sorted(entry.origin.fields.items())]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _MOST else text[:_MOST] + "… (cut; the entry file has all of it)"


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
