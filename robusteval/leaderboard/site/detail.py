"""What stands behind the numbers of a measured entry: by attack, domain, severity and seed, and the records themselves.

Every cell is the share of examples that are right, over all training seeds where it does not say one, with half of
Wilson's 95 % interval for that many examples.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robusteval.leaderboard.boards import Board, role_columns
from robusteval.leaderboard.entries import Entry
from robusteval.leaderboard.evidence import unpacked
from robusteval.schema.cells import EvalCell
from robusteval.schema.plans import RowSeed
from robusteval.schema.records import ResultRecord
from robusteval.stats.intervals import wilson

MOST = 2000
"""Most characters of one raw field on the page; the entry file has all of it."""
_GRADED = re.compile(r"(.+)[-/]([1-9])")
"""A corruption and its severity, as `fog-3`."""
Flags = NDArray[np.bool_]


def details(board: Board, entry: Entry) -> list[dict[str, Any]]:
    """One section for each column of the board that the entry was measured in."""
    by_key = {record.cell_key: record for record in entry.records}
    found = []
    for role, column in role_columns(board):
        pairs = [(row, by_key[row.cells[role]]) for row in entry.rows if row.cells.get(role) in by_key]
        pairs = [(row, record) for row, record in pairs if record.evaluation is not None]
        if pairs:
            found.append(_section(board, role, column, entry, pairs))
    return found


def _section(
    board: Board, role: str, column: str, entry: Entry, pairs: Sequence[tuple[RowSeed, ResultRecord]]
) -> dict[str, Any]:
    names = _outcome_names(pairs)
    seeds = len({row.seed for row, _ in pairs})
    domains: dict[str, dict[str, list[Flags]]] = {}
    for row, record in pairs:
        for domain, flags in _by_domain(record):
            shown = domain if not row.fold or domain == row.fold else f"{domain} [{row.fold}]"
            for name, bits in flags.items():
                domains.setdefault(shown, {}).setdefault(name, []).append(bits)
    return {
        "role": role,
        "title": board.column(column).title,
        "outcomes": names,
        "seeds": seeds,
        "domains": [
            {"name": domain, "cells": [_share(flags.get(name, ())) for name in names]}
            for domain, flags in domains.items()
        ],
        "grids": [grid for name in names if (grid := _grid(name, domains)) is not None],
        "rows": [_seed_row(entry, role, row, record, names) for row, record in pairs],
        "records": [_record(entry, role, row, record) for row, record in pairs],
    }


def _outcome_names(pairs: Sequence[tuple[RowSeed, ResultRecord]]) -> list[str]:
    """Clean first, what is counted last, the attacks between them."""
    names = {name for _, record in pairs if record.evaluation is not None for name in record.evaluation.outcomes}
    return sorted(names, key=lambda name: (name != "clean", name == "robust", name))


def _by_domain(record: ResultRecord) -> Iterator[tuple[str, dict[str, Flags]]]:
    evaluation = record.evaluation
    assert evaluation is not None
    bits = {name: unpacked(packed) for name, packed in evaluation.outcomes.items()}
    start = 0
    for domain, count in evaluation.domains:
        yield domain, {name: flags[start : start + count] for name, flags in bits.items()}
        start += count


def _share(parts: Sequence[Flags]) -> str:
    """Share of the right ones; `parts` are the same examples, once a training seed."""
    if not parts or not len(parts[0]):
        return "-"
    n = len(parts[0])
    value = float(np.mean([flags.mean() for flags in parts]))
    low, high = wilson(min(n, value * n), n)
    return f"{100 * value:.1f} ±{50 * (high - low):.1f}"


def _grid(outcome: str, domains: dict[str, dict[str, list[Flags]]]) -> dict[str, Any] | None:
    """Corruptions by severity, if that is what the domains are."""
    graded = {name: match for name in domains if (match := _GRADED.fullmatch(name)) is not None}
    severities = sorted({match[2] for match in graded.values()})
    if len(severities) < 2:
        return None
    rows = []
    for kind in dict.fromkeys(match[1] for match in graded.values()):
        own = {match[2]: domains[name].get(outcome, []) for name, match in graded.items() if match[1] == kind}
        means = [float(np.mean([flags.mean() for flags in parts])) for parts in own.values() if parts]
        cells = [_share(own.get(severity, ())).partition(" ")[0] for severity in severities]
        rows.append({"name": kind, "cells": [*cells, f"{100 * float(np.mean(means)):.1f}" if means else "-"]})
    return {"outcome": outcome, "severities": severities, "rows": rows}


def anchor(role: str, row: RowSeed) -> str:
    """Name of a record in the address of the page."""
    return f"{role}-seed-{row.seed}" + (f"-{row.fold}" if row.fold else "")


def run_command(entry: Entry, row: RowSeed, role: str = "") -> str:
    """The command line that measures the cells of a seed again, or one of them."""
    assert entry.suite is not None
    if row.train_key is None:
        cells = f" --cells {role}" if role else ""
        return f"robusteval eval MODEL --suite {entry.suite.name}{cells}"
    terms = [f"label={row.label}", f"seed={row.seed}"]
    terms += [f"fold={row.fold}"] if row.fold else []
    terms += [f"role={role}"] if role else []
    return f"robusteval run {entry.suite.name} --only {_quoted(','.join(terms))}"


def _quoted(text: str) -> str:
    return f"'{text}'" if re.search(r"[^\w@%+=:,./-]", text) else text


def _seed_row(entry: Entry, role: str, row: RowSeed, record: ResultRecord, names: Sequence[str]) -> dict[str, Any]:
    evaluation = record.evaluation
    assert evaluation is not None
    flags = {name: unpacked(packed) for name, packed in evaluation.outcomes.items()}
    return {
        "seed": row.seed_name,
        "anchor": anchor(role, row),
        "cells": [_share([flags[name]]) if name in flags else "-" for name in names],
        "n": f"{record.cell.data.n:,}",
        "command": run_command(entry, row, role),
    }


def _record(entry: Entry, role: str, row: RowSeed, record: ResultRecord) -> dict[str, Any]:
    evaluation, cell, provenance = record.evaluation, record.cell, record.provenance
    assert evaluation is not None
    n = max(1, cell.data.n)
    facts = [
        ("Cell", record.cell_key),
        ("Result", record.result_digest),
        ("Data", f"{cell.data.dataset.name}, {cell.data.split}, n={cell.data.n:,}, ids {cell.data.ids_digest[:12]}"),
        (
            "Passes per example",
            f"{evaluation.budget.forward / n:.1f} forward, {evaluation.budget.backward / n:.1f} backward",
        ),
        ("Measured", f"{record.timing.started_at}, {record.timing.wall_s:.1f} s, {provenance.device}"),
        ("Software", f"robusteval {provenance.robusteval_version}, commit {provenance.git_commit or 'unknown'}"),
    ]
    if isinstance(cell, EvalCell):
        facts[2:2] = [
            ("Threat model", "none" if cell.threat is None else str(cell.threat)),
            ("Evaluator", f"{cell.evaluator.name}, protocol {cell.protocol}"),
            ("Parameters", short(cell.evaluator.params) if cell.evaluator.params else ""),
        ]
    return {
        "heading": f"{role}, {row.seed_name}",
        "anchor": anchor(role, row),
        "facts": [(name, text) for name, text in facts if text],
        "flags": evaluation.flags,
        "command": run_command(entry, row, role),
    }


def short(value: Any) -> str:
    """A raw value as text, cut to what a page can hold."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= MOST else text[:MOST] + "… (cut; the entry file has all of it)"
