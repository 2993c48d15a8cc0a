"""The plan of a suite as a table, or as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robusteval.planning.plan import Plan
    from robusteval.planning.workers import WorkerEstimate
    from robusteval.schema.plans import StoredPlan


def print_plan(planned: Plan, as_json: bool, *, keys: bool = False, workers: WorkerEstimate | None = None) -> None:
    """Print a plan.

    Args:
        planned: the plan.
        as_json: as JSON instead of a table.
        keys: with the keys and roles of cells.
        workers: what workers would bring, if the user asked.
    """
    from robusteval.cli import render

    if as_json:
        document = {
            "suite": planned.suite,
            "version": planned.version,
            "plan": [cell.summary() for cell in planned.cells],
            "passes_left": planned.passes_left,
            "selecting": planned.selecting,
            **planned.totals,
            **({} if workers is None else {"workers": workers.summary()}),
        }
        print(json.dumps(document, indent=2))
        return
    header = [*(["key"] if keys else []), "cell", *(["role"] if keys else []), "state", "passes", "reason"]
    rows = [
        [
            *([cell.key[:12]] if keys else []),
            cell.title,
            *([cell.role] if keys else []),
            cell.state,
            render.count(cell.passes),
            cell.reason,
        ]
        for cell in planned.cells
    ]
    totals = planned.totals
    parts = [
        f"{totals['cells']} cells",
        *(f"{totals[name]} {name}" for name in ("done", "pending", "failed", "blocked")),
        *(f"{totals[name]} {name}" for name in ("running", "stale") if totals[name]),
    ]
    note = f"{planned.suite} version {planned.version}: {', '.join(parts)}"
    note += f"; at most {render.count(planned.passes_left)} passes of single images are left"
    render.print_table(
        header, rows, [note, *_selection_notes(planned), *_worker_notes(workers), *_protocol_notes(planned.stored)]
    )


def _worker_notes(workers: WorkerEstimate | None) -> list[str]:
    """How many workers help, and what more of them would wait for."""
    if workers is None or not workers.total:
        return []
    spans = ", ".join(f"{count}: {100 * span / workers.total:.0f} %" for count, span in workers.spans.items())
    share = f"{100 * workers.longest / workers.total:.0f} %"
    return [
        f"workers that help: {workers.useful}; length of the run by workers, in passes: {spans}",
        f"longest chain, {share} of all passes: {' > '.join(workers.chain)}",
    ]


def _selection_notes(planned: Plan) -> list[str]:
    """How many trainings there are besides those that the table shows."""
    if not planned.selecting:
        return []
    shown = sum(cell.role == "train" for cell in planned.cells)
    return [f"trainings: {shown} that the table shows, and {planned.selecting} only to select by leave-one-domain-out"]


def _protocol_notes(stored: StoredPlan) -> list[str]:
    """Which trainings each selection rule of the suite's protocol needs, and how many this suite has."""
    use = stored.protocol
    if use is None:
        return []
    here = len(stored.row(stored.labels[0]))
    needed = ", ".join(f"{rule} {runs}" for rule, runs in use.runs.items())
    deviations = [f"  deviates: {one}" for one in use.deviations]
    note = f"protocol {use.name}: trainings of one row for its whole table, by rule: {needed}; in this suite: {here}"
    return [note, *deviations]
