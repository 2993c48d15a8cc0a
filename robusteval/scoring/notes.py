"""What stands under a scored table: what its columns are, how its rows were chosen, and what is missing."""

from __future__ import annotations

from robusteval.schema.protocols import LEAVE_ONE_OUT
from robusteval.schema.specs import CELLS
from robusteval.scoring.results import MethodScore, SuiteTable
from robusteval.scoring.spec_names import spec_notes
from robusteval.scoring.summary_columns import error_notes

HEADINGS = {"a_id": "A_id", "r_id": "R_id", "a_ood": "A_ood", "r_ood": "R_ood"}
"""Column to the symbol that it is printed under."""


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
            lines.append(f"{row.method}: not ranked, missing {'; '.join(missing_words(row, whole_seeds=True))}.")
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


def missing_words(row: MethodScore, *, whole_seeds: bool = False) -> list[str]:
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
