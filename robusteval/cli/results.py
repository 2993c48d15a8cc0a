"""The command that reads the store: show."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robusteval.cli.lookup import find_key, find_plan
from robusteval.cli.options import (
    DEFAULT_STORE,
    JsonOption,
    QuietOption,
    StoreOption,
    TableFormat,
    VerboseOption,
    examples,
    open_store,
)

if TYPE_CHECKING:
    from robusteval.schema.plans import StoredPlan
    from robusteval.schema.records import ResultRecord
    from robusteval.scoring.results import SuiteTable
    from robusteval.store.store import Store

CELLS_DAMAGED = 3


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        epilog=examples(
            "robusteval show digits",
            "robusteval show digits --format json",
            "robusteval show digits --plot digits.png --pareto a_id,r_id",
            "robusteval show 3fb2c81a90d4    # one record, by the beginning of its key",
            "robusteval show                 # which suites have results",
        )
    )(show)


def show(
    what: Annotated[
        str, typer.Argument(metavar="SUITE|KEY", help="Suite (name, name@version or file), or a cell's key.")
    ] = "",
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[TableFormat, typer.Option("--format", help="How the table is written.")] = TableFormat.TABLE,
    as_json: JsonOption = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a scatter of two columns (PNG or SVG).", show_default=False),
    ] = None,
    pareto: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMNS", help="Columns for the Pareto marks and the scatter, as a_id,r_id.", show_default=False
        ),
    ] = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = 0,
) -> None:
    """Show stored results of a suite, or one record.

    Only the store is read: the 2 x 2 table of a suite, one record in full, or what there is.
    """
    place = open_store(store)
    if as_json:
        form = TableFormat.JSON
    if not what:
        _print_plans(place, form)
        return
    stored = find_plan(place, what)
    if stored is None:
        _print_record(place, what, form)
        return
    columns = _columns(pareto)
    table, damaged = read_scores(place, stored, columns)
    print_scores(table, form.value, verbose=verbose > 0)
    if plot is not None:
        _plot(table, plot, columns, quiet=quiet)
    end_with_notes(damaged)


def end_with_notes(damaged: list[str]) -> None:
    """Name damaged files on standard error; if there is one, end with the exit code for it.

    Raises:
        typer.Exit: something is damaged.
    """
    for text in damaged:
        print(f"note: {text}", file=sys.stderr)
    if damaged:
        raise typer.Exit(CELLS_DAMAGED)


def read_scores(
    place: Store, stored: StoredPlan, columns: tuple[str, ...] | None = None
) -> tuple[SuiteTable, list[str]]:
    """Score a suite from what is stored.

    Args:
        place: the store.
        stored: the plan.
        columns: columns for the Pareto marks; the suite's own by default.

    Returns:
        The table, and a line for each damaged file; the cells of those count as not run.
    """
    from robusteval.scoring.table import front_rows, score

    records: dict[str, ResultRecord] = {}
    damaged: list[str] = []
    for key in sorted({key for row in stored.rows for key in _keys(row.train_key, row.start_train_key, row.cells)}):
        record = _read_record(place, key, damaged)
        if record is not None:
            records[key] = record
    _drop_unknown_ids(place, records, damaged)
    table = score(stored, records, place.groups)
    if columns is not None:
        front = set(front_rows(table, columns))
        rows = tuple(row.model_copy(update={"pareto": row.method in front}) for row in table.rows)
        table = table.model_copy(update={"rows": rows, "pareto": columns})
    return table, damaged


def _read_record(place: Store, key: str, damaged: list[str]) -> ResultRecord | None:
    """The result of a cell, or else its last failure; what cannot be read is None and gets a line in `damaged`."""
    from robusteval.schema.errors import StoreError

    try:
        return place.latest(key)
    except (StoreError, OSError) as error:
        damaged.append(str(error))
        return None


def _drop_unknown_ids(place: Store, records: dict[str, ResultRecord], damaged: list[str]) -> None:
    """Leave out evaluations whose id list cannot be read: without the groups their intervals would be too narrow."""
    from robusteval.schema.errors import StoreError

    problems: dict[str, str] = {}
    for digest in {record.cell.data.ids_digest for record in records.values() if record.evaluation is not None}:
        try:
            place.groups(digest)
        except StoreError as error:
            problems[digest] = str(error)
    damaged += sorted(problems.values())
    for key, record in list(records.items()):
        if record.evaluation is not None and record.cell.data.ids_digest in problems:
            del records[key]


def _keys(train: str | None, start: str | None, cells: dict[str, str]) -> set[str]:
    return {key for key in (train, start) if key is not None} | set(cells.values())


def print_scores(table: SuiteTable, form: str, *, verbose: bool = False) -> None:
    """Write a table to standard output."""
    from robusteval.cli import render
    from robusteval.scoring import render as scoring

    if form == "json":
        print(json.dumps(scoring.to_json(table), indent=2))
    elif form == "csv":
        print(scoring.to_csv(table), end="")
    elif form == "md":
        print(scoring.to_markdown(table), end="")
    else:
        header, rows = scoring.to_plain_rows(table)
        render.print_table(header, rows, scoring.notes(table), title=f"{table.suite} version {table.version}")
        if verbose:
            header, rows = scoring.comparison_rows(table)
            render.print_table(header, rows, [f"Compared with {table.baseline!r} on the same examples."])


def _columns(text: str | None) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in text.split(",")) if text is not None else None


def _plot(table: SuiteTable, file: Path, columns: tuple[str, ...] | None, *, quiet: bool) -> None:
    from robusteval.schema.errors import UsageError
    from robusteval.scoring.plot import scatter

    if columns is not None and len(columns) != 2:
        raise UsageError(f"--plot draws two columns, --pareto names {len(columns)}: {','.join(columns)}")
    axes = {} if columns is None else {"x": columns[0], "y": columns[1]}
    try:
        scatter(table, file, **axes)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(
            f"--plot {file}: cannot be written ({reason}); give a file in a folder you can write"
        ) from None
    if not quiet:
        print(f"wrote {file}", file=sys.stderr)


def _print_plans(place: Store, form: TableFormat) -> None:
    from robusteval.cli import render

    damaged: list[str] = []
    plans = place.plans(damaged)
    if form is TableFormat.JSON:
        listed = [{"suite": plan.suite, "version": plan.version, "summary": plan.summary} for plan in plans]
        print(json.dumps(listed, indent=2))
    else:
        rows = [[plan.suite, str(plan.version), str(len(plan.labels)), plan.summary] for plan in plans]
        notes = [] if rows or damaged else [f"nothing is stored in {place.uri}"]
        render.print_table(["suite", "version", "rows", "summary"], rows, notes)
    end_with_notes(damaged)


def _print_record(place: Store, prefix: str, form: TableFormat) -> None:
    from robusteval.cli import render

    key = find_key(place, prefix)
    failure = place.get_failure(key)
    record = failure if failure is not None else place.get(key)
    if form is not TableFormat.TABLE:
        print(json.dumps(record.model_dump(mode="json"), indent=2))
        return
    render.print_facts(_facts(record), title=f"{record.cell.kind} cell {record.cell_key}")


def _facts(record: ResultRecord) -> list[tuple[str, str]]:
    """A record as names and values, the outcomes as counts."""
    cell, data, timing = record.cell, record.cell.data, record.timing
    what = cell.method if cell.kind == "train" else cell.evaluator
    facts = [
        ("status", record.status),
        ("method" if cell.kind == "train" else "evaluator", f"{what.name} {json.dumps(what.params)}"),
        ("data", f"{data.dataset.name} {data.split}: {', '.join(data.domains)} ({data.n} examples)"),
        ("seed", str(cell.seed)),
    ]
    if cell.kind == "eval":
        facts += [("threat", str(cell.threat or "none")), ("model", json.dumps(cell.model.model_dump(mode="json")))]
    else:
        start = cell.start.model_dump(mode="json") if cell.start is not None else "random weights"
        facts += [("architecture", f"{cell.architecture.name} {json.dumps(cell.architecture.params)}")]
        facts += [("start", json.dumps(start))]
    facts += _found(record)
    facts += [
        ("result digest", record.result_digest),
        ("started", f"{timing.started_at}, {timing.wall_s:.1f} s, {timing.peak_memory_mb:.0f} MB at most"),
        ("provenance", json.dumps(record.provenance.model_dump(mode="json"), indent=1)),
    ]
    return facts


def _found(record: ResultRecord) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    if record.evaluation is not None:
        for metric in record.evaluation.metrics:
            ends = f" [{metric.low:.4f}, {metric.high:.4f}] {metric.interval}" if metric.low is not None else ""
            facts.append((metric.name, f"{metric.value:.4f}{ends} (n={metric.n})"))
        for name, bits in record.evaluation.outcomes.items():
            facts.append((f"outcome {name}", f"{sum(bits.unpack())} of {bits.n}"))
        for flag in record.evaluation.flags:
            facts.append((f"flag {flag.code}", f"{flag.severity}: {flag.evidence}; {flag.next_step}"))
        facts.append(("passes", json.dumps(record.evaluation.budget.model_dump())))
        named = (("spec", record.evaluation.spec), ("details", record.evaluation.details))
        facts += [(name, value) for name, value in named if value is not None]
        if record.evaluation.images:
            again = f"robusteval replay {record.cell_key[:12]} verifies them"
            facts.append(("images", f"{len(record.evaluation.images)} files of adversarial images; {again}"))
    if record.training is not None:
        training = record.training
        facts += [
            ("weights", training.weights),
            ("selected", f"epoch {training.selected_epoch} of {len(training.history)}, by {training.selected_on}"),
            ("passes", json.dumps(training.budget.model_dump())),
            ("diagnostics", json.dumps(training.diagnostics)),
        ]
    if record.failure is not None:
        facts.append((f"failed in {record.failure.stage}", record.failure.traceback.rstrip()))
    return facts
