"""A scored suite as JSON, CSV, Markdown and plain cells. No terminal library here."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from robusteval.schema.specs import CELLS
from robusteval.scoring.notes import HEADINGS, missing_words, notes
from robusteval.scoring.results import Comparison, Estimate, MethodScore, SuiteTable, ThreatScore
from robusteval.scoring.spec_names import flat_specs
from robusteval.scoring.summary_columns import error_cells, error_headings, flat_summaries

ABSENT = "-"
"""What stands in a cell without a number."""
_COSTS = ("train_passes_per_example", "start_passes_per_example", "selection_passes_per_example", "train_wall_s")


def to_json(table: SuiteTable) -> list[dict[str, Any]]:
    """One object a method; accuracies are fractions, absent ones null."""
    return [_object(row) for row in table.rows]


def _object(row: MethodScore) -> dict[str, Any]:
    first = ("method", "recipe", *CELLS, "train_passes_per_example", "pareto", "ranked")
    values: dict[str, Any] = {**row.model_dump(mode="json"), "ranked": row.ranked}
    return {name: values[name] for name in (*first, *(name for name in values if name not in first))}


def flat_rows(table: SuiteTable) -> list[dict[str, Any]]:
    """One flat mapping a method: every number of the main table under its own name, absent ones None."""
    return [_flat(table, row) for row in table.rows]


def _flat(table: SuiteTable, row: MethodScore) -> dict[str, Any]:
    flat: dict[str, Any] = {"method": row.method, "recipe": row.recipe, "pareto": row.pareto, "ranked": row.ranked}
    for column in CELLS:
        flat |= _flat_estimate(column, row.column(column))
    for name in table.threats[1:]:
        threat = row.threats.get(name, ThreatScore())
        flat |= _flat_estimate(f"r_id[{name}]", threat.r_id) | _flat_estimate(f"r_ood[{name}]", threat.r_ood)
    if len(table.threats) > 1 and any(one.union for one in table.rows):
        together = row.union or ThreatScore()
        flat |= _flat_estimate("r_id_union", together.r_id) | _flat_estimate("r_ood_union", together.r_ood)
    if any(one.audit for one in table.rows):
        flat["oracle_premium"] = None if row.audit is None else row.audit.oracle_premium
        flat["a_ood_other_rule"] = None if row.audit is None else row.audit.a_ood.value
    if table.unseen_threats:
        flat |= _flat_estimate("r_ood_threats", row.r_ood_threats)
        flat |= _flat_estimate("r_ood_overall", row.r_ood_overall)
    for name in table.unseen_threats:
        flat |= _flat_estimate(f"r_unseen[{name}]", row.unseen.get(name))
    for name, gap in row.gaps:
        for field in ("value", "low", "high"):
            flat[name if field == "value" else f"{name}_{field}"] = None if gap is None else getattr(gap, field)
    for column in CELLS:
        worst = row.worst.get(column)
        flat[f"{column}_worst_domain"] = None if worst is None else worst.domain
        flat[f"{column}_worst"] = None if worst is None else worst.value
        flat[f"{column}_worst_simultaneous_low"] = None if worst is None else worst.simultaneous_low
    flat |= flat_summaries(table, row)
    flat |= flat_specs(table, row)
    flat |= {name: getattr(row, name) for name in _COSTS}
    flat["selected_on"] = " ".join(row.selected_on)
    flat["flags"] = " ".join(row.flags)
    flat["missing"] = "; ".join(missing_words(row))
    return flat


def _flat_estimate(column: str, estimate: Estimate | None) -> dict[str, Any]:
    fields = ("value", "low", "high", "n", "interval", "seed_low", "seed_high", "seed_interval")
    flat = {
        column if field == "value" else f"{column}_{field}": None if estimate is None else getattr(estimate, field)
        for field in fields
    }
    return flat | {f"{column}_seeds": None if estimate is None else len(estimate.seeds)}


def to_csv(table: SuiteTable) -> str:
    """Comma separated values with a header line; accuracies are fractions at full precision, absent ones empty."""
    rows = flat_rows(table)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else ["method"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(table: SuiteTable) -> str:
    """A Markdown table followed by the notes that define its numbers."""
    header, rows = to_plain_rows(table)
    lines = [_pipes(header), _pipes(["---"] + ["---:"] * (len(header) - 2) + [":---:"]), *map(_pipes, rows)]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(table)), ""])


def _pipes(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def to_plain_rows(table: SuiteTable) -> tuple[list[str], list[list[str]]]:
    """Header and cells as text.

    Accuracies are `value ±half (±half)` in percent: half the width of the interval over examples, then, with two or
    more seeds, half the width of the interval over seeds. The last column marks the Pareto front with `*`.
    """
    columns = [column for column in CELLS if any(row.column(column) for row in table.rows)]
    header = ["method", *(HEADINGS[column] for column in columns)]
    extra = [column for column in _further_columns(table) if any(column.read(row) for row in table.rows)]
    header += [column.heading for column in extra]
    audited = any(row.audit for row in table.rows)
    header += [*error_headings(table), *(["oracle premium"] if audited else [])]
    header += ["passes/example", "start passes", "train s", "Pareto"]
    rows = []
    for row in table.rows:
        cells = [row.method, *(_accuracy(row.column(column)) for column in columns)]
        cells += [_accuracy(column.read(row)) for column in extra]
        cells += [*error_cells(table, row, ABSENT), *([_premium(row)] if audited else [])]
        cells += [_count(row.train_passes_per_example), _count(row.start_passes_per_example)]
        cells += [_count(row.train_wall_s), "*" if row.pareto else "" if row.ranked else "unranked"]
        rows.append(cells)
    return header, rows


@dataclass(frozen=True)
class _Column:
    """A column besides the four: its heading, and where its number is."""

    heading: str
    read: Callable[[MethodScore], Estimate | None]


def _further_columns(table: SuiteTable) -> list[_Column]:
    """Further threats, the union of all, and the mean over unseen ones."""
    sides = ("r_id", "r_ood")
    columns = [
        _Column(f"{HEADINGS[side]} {name}", _of_threat(name, side)) for name in table.threats[1:] for side in sides
    ]
    columns += [_Column(f"{HEADINGS[side]} union", _of_union(side)) for side in sides]
    return [*columns, _Column("R_ood threats", lambda row: row.r_ood_threats)]


def _of_threat(name: str, side: str) -> Callable[[MethodScore], Estimate | None]:
    return lambda row: getattr(row.threats.get(name, ThreatScore()), side)


def _of_union(side: str) -> Callable[[MethodScore], Estimate | None]:
    return lambda row: getattr(row.union or ThreatScore(), side)


def _accuracy(estimate: Estimate | None) -> str:
    if estimate is None:
        return ABSENT
    text = f"{100 * estimate.value:.1f} ±{50 * (estimate.high - estimate.low):.1f}"
    if estimate.seed_half_width is not None:
        text += f" (±{100 * estimate.seed_half_width:.1f})"
    return text


def _premium(row: MethodScore) -> str:
    return ABSENT if row.audit is None else f"+{100 * row.audit.oracle_premium:.1f}"


def _count(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def comparison_rows(table: SuiteTable) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the paired comparisons with the baseline row."""
    header = ["method", "column", "difference", "losses", "gains", "n", "p", "p Holm", "verdict"]
    rows = [_comparison(row.comparisons[column]) for row in table.rows for column in CELLS if column in row.comparisons]
    return header, rows


def _comparison(found: Comparison) -> list[str]:
    gap = found.difference
    return [
        found.candidate,
        HEADINGS.get(found.column, found.column),
        f"{_points(gap.value)} [{_points(gap.low)}, {_points(gap.high)}]",
        str(found.losses),
        str(found.gains),
        str(found.n),
        f"{found.p:.2g}",
        f"{found.p_holm:.2g}",
        found.verdict,
    ]


def _points(fraction: float) -> str:
    # Adding zero turns the negative zero of rounding into a plain one.
    return f"{round(100 * fraction, 1) + 0.0:+.1f}"
