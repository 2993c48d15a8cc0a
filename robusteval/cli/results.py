"""The command that reads the store: show."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robusteval.cli.facts import facts_of
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
    if not quiet:
        _tell_under_way(place, stored)
    end_with_notes(damaged)


def _tell_under_way(place: Store, stored: StoredPlan) -> None:
    """Say on standard error which cells of a suite somebody executes, or died with."""
    from robusteval.store.progress import count_cells

    now = count_cells(place, [stored])[0]
    parts = [f"{number} {word}" for number, word in ((now.running, "running"), (now.stale, "stale")) if number]
    if parts:
        print(f"note: {now.done} of {now.cells} cells done, {', '.join(parts)}; see robusteval status", file=sys.stderr)


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
    from robusteval.scoring.notes import notes

    if form == "json":
        print(json.dumps(scoring.to_json(table), indent=2))
    elif form == "csv":
        print(scoring.to_csv(table), end="")
    elif form == "md":
        print(scoring.to_markdown(table), end="")
    else:
        header, rows = scoring.to_plain_rows(table)
        render.print_table(header, rows, notes(table), title=f"{table.suite} version {table.version}")
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
    from robusteval.store.progress import count_cells

    damaged: list[str] = []
    plans = place.plans(damaged)
    counts = count_cells(place, plans)
    if form is TableFormat.JSON:
        listed = [
            {"suite": plan.suite, "version": plan.version, "summary": plan.summary, **now.numbers}
            for plan, now in zip(plans, counts, strict=True)
        ]
        print(json.dumps(listed, indent=2))
    else:
        rows = [
            [plan.suite, str(plan.version), str(len(plan.labels)), now.words, plan.summary]
            for plan, now in zip(plans, counts, strict=True)
        ]
        notes = [] if rows or damaged else [f"nothing is stored in {place.uri}"]
        render.print_table(["suite", "version", "rows", "cells", "summary"], rows, notes)
    end_with_notes(damaged)


def _print_record(place: Store, prefix: str, form: TableFormat) -> None:
    from robusteval.cli import render

    under_way = [seen for key, seen in place.leases.seen().items() if key.startswith(prefix)]
    if len(under_way) == 1 and place.latest(under_way[0].key) is None:
        render.print_facts([(under_way[0].state, under_way[0].reason)], title=f"cell {under_way[0].key}")
        return
    key = find_key(place, prefix)
    failure = place.get_failure(key)
    record = failure if failure is not None else place.get(key)
    if form is not TableFormat.TABLE:
        print(json.dumps(record.model_dump(mode="json"), indent=2))
        return
    render.print_facts(facts_of(record), title=f"{record.cell.kind} cell {record.cell_key}")
