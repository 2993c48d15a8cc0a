"""A scored suite as JSON, CSV, Markdown and plain cells. No terminal library here."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from robusteval.schema.protocols import LEAVE_ONE_OUT
from robusteval.schema.specs import CELLS
from robusteval.scoring.results import Comparison, Estimate, MethodScore, SuiteTable, ThreatScore
from robusteval.scoring.spec_names import flat_specs, spec_notes
from robusteval.scoring.summary_columns import error_cells, error_headings, error_notes, flat_summaries

ABSENT = "-"
"""What stands in a cell without a number."""
HEADINGS = {"a_id": "A_id", "r_id": "R_id", "a_ood": "A_ood", "r_ood": "R_ood"}
"""Column to the symbol that it is printed under."""
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
    flat["missing"] = "; ".join(_missing_words(row))
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


def notes(table: SuiteTable) -> list[str]:
    """Sentences that define every number of the plain table, then what is wrong with single rows."""
    percent = f"{100 * table.confidence:.0f} %"
    estimates = [estimate for row in table.rows for column in CELLS if (estimate := row.column(column))]
    lines = [_columns_note(table)]
    clustered = any(estimate.interval == "wilson-clustered" for estimate in estimates)
    wilson = f"±: half the width of the {percent} Wilson interval over examples"
    if clustered:
        wilson += ", at the effective sample size where several examples show one source image"
    seeds = max((len(estimate.seeds) for estimate in estimates), default=0)
    if seeds > 1:
        wilson += f"; (±): half the width of the {percent} t interval over {seeds} training seeds"
    elif _planned_seeds(table) > 1:
        wilson += f"; of {_planned_seeds(table)} training seeds fewer than two have results: no interval over seeds yet"
    else:
        wilson += "; one training seed, so no interval over seeds"
    lines.append(wilson + ".")
    lines.append(
        "passes/example: forward plus backward passes per training example of this training alone; start passes: of "
        "what it started from; train s: wall seconds; all means over seeds."
    )
    symbols = ", ".join(HEADINGS[column] for column in table.pareto)
    lines.append(f"Pareto *: no other complete row is at least as good in all of {symbols} and better in one.")
    lines += [*error_notes(table), *_protocol_notes(table)]
    return lines + spec_notes(table) + _threat_notes(table) + _selection_note(table) + _row_notes(table)


def _columns_note(table: SuiteTable) -> str:
    sides = [f"id: {', '.join(table.id_domains)}"]
    if table.ood_domains:
        pooled = table.protocol is not None and table.protocol.average == "micro"
        sides.append(f"ood: {'pooled images of' if pooled else 'mean over'} {', '.join(table.ood_domains)}")
    text = f"A clean, R robust accuracy in percent; {'; '.join(sides)}"
    counts = []
    for column in CELLS:
        found = sorted({estimate.n for row in table.rows if (estimate := row.column(column))})
        if found:
            counts.append(f"{HEADINGS[column]} {'/'.join(str(n) for n in found)}")
    if counts:
        text += f"; examples: {', '.join(counts)}"
    return text + (f"; R under {table.threats[0]}." if table.threats else ".")


def _protocol_notes(table: SuiteTable) -> list[str]:
    """Which protocol the suite follows, where it deviates, and what the premium is."""
    lines = []
    if any(row.audit for row in table.rows):
        own = "the row's, " if any(LEAVE_ONE_OUT in row.selected_on for row in table.rows) else ""
        lines.append(
            f"oracle premium: points of A_ood that choosing between {own}the last and the best-validated weights "
            "on the shifted data itself would add; it ranks nothing."
        )
    if table.protocol is not None:
        deviations = "; ".join(table.protocol.deviations) or "none"
        name = f"{table.protocol.name} ({table.protocol.digest[:12]})"
        lines.append(f"Protocol {name}; deviations: {deviations}.")
    return lines


def _threat_notes(table: SuiteTable) -> list[str]:
    """What the union and the unseen threats are."""
    lines = []
    if any(row.union for row in table.rows):
        lines.append(f"union: examples that are robust under every one of {', '.join(table.threats)}.")
    if table.unseen_threats:
        lines.append(
            f"R_ood threats: in distribution, mean over the unseen threats {', '.join(table.unseen_threats)}; not part "
            "of R_ood. --json has each, and the mean of both as r_ood_overall."
        )
    return lines


def _selection_note(table: SuiteTable) -> list[str]:
    """What selected the weights of which rows."""
    by: dict[str, list[str]] = {}
    for row in table.rows:
        if row.selected_on:
            by.setdefault(" and ".join(row.selected_on), []).append(row.method)
    if not by:
        return []
    words = {"last": "of the last epoch", LEAVE_ONE_OUT: f"selected by {LEAVE_ONE_OUT}"}
    groups = "; ".join(f"{words.get(on, f'selected on {on}')}: {', '.join(rows)}" for on, rows in sorted(by.items()))
    return [f"Weights {groups}. Test and shifted data select nothing."]


def _row_notes(table: SuiteTable) -> list[str]:
    lines = []
    waiting = [row.method for row in table.rows if _never_ran(row)]
    for row in table.rows:
        if row.flags:
            lines.append(f"{row.method}: flagged {', '.join(row.flags)}.")
        if row.missing and row.method not in waiting:
            lines.append(f"{row.method}: not ranked, missing {'; '.join(_missing_words(row, whole_seeds=True))}.")
    if waiting:
        lines.append(f"Not run yet: {', '.join(waiting)} ({len(waiting)} {'row' if len(waiting) == 1 else 'rows'}).")
    return lines


def _planned_seeds(table: SuiteTable) -> int:
    """Number of training seeds that have results or are missing."""
    seeds = {cell.seed for row in table.rows for cell in row.missing}
    for row in table.rows:
        for column in CELLS:
            estimate = row.column(column)
            seeds |= set(estimate.seeds) if estimate is not None else set()
    return len(seeds)


def _unstarted_seeds(row: MethodScore) -> set[int]:
    """Seeds of which nothing has run, not even the training."""
    states: dict[int, set[str]] = {}
    for cell in row.missing:
        states.setdefault(cell.seed, set()).add(cell.state)
    untrained = {cell.seed for cell in row.missing if cell.role == "train"}
    return {seed for seed in untrained if states[seed] == {"not run"}}


def _never_ran(row: MethodScore) -> bool:
    nothing = all(row.column(column) is None for column in CELLS)
    return bool(row.missing) and nothing and _unstarted_seeds(row) == {cell.seed for cell in row.missing}


def _missing_words(row: MethodScore, *, whole_seeds: bool = False) -> list[str]:
    """Each cell without a result, or, with `whole_seeds`, one entry for all cells of a seed that has not started."""
    unstarted = _unstarted_seeds(row) if whole_seeds else set()
    words = [f"seed {seed} (not run)" for seed in sorted(unstarted)]
    for cell in row.missing:
        if cell.seed in unstarted:
            continue
        reason = f" ({cell.reason.splitlines()[0]})" if cell.reason else ""
        fold = f" [{cell.fold}]" if cell.fold else ""
        words.append(f"{cell.role} of seed {cell.seed}{fold} {cell.state}{reason}")
    return words


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
