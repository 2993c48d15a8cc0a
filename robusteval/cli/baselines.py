"""The commands that manage baselines of regression checks: baseline save, show, drift."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robusteval.cli.compare import (
    AlphaOption,
    ComparisonFormat,
    FormatOption,
    MarginOption,
    SensitivityOption,
    StrictOption,
    end_with_verdict,
    make_rule,
    print_comparison,
)
from robusteval.cli.options import DEFAULT_STORE, JsonOption, StoreOption, examples

if TYPE_CHECKING:
    from robusteval.scoring.baseline_cell import BaselineCell
    from robusteval.scoring.baselines import Baseline

DEFAULT_FOLDER = Path("tests/baselines")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the baseline.", show_default=False)]
FolderOption = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Folder of baselines.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(help="Manage the baselines of regression checks.", no_args_is_help=True, rich_markup_mode=None)
    group.command(
        epilog=examples("robusteval baseline save main", "robusteval baseline save main --from digits:pgd-at")
    )(save)
    group.command(epilog=examples("robusteval baseline show", "robusteval baseline show main --json"))(show)
    group.command(epilog=examples("robusteval baseline drift main", "robusteval baseline drift main --margin 2"))(drift)
    app.add_typer(group, name="baseline")


def save(
    name: NameArgument,
    folder: FolderOption = DEFAULT_FOLDER,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="SUITE:ROW", help="Take the stored results of one row.", show_default=False),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    force: Annotated[
        bool, typer.Option("--force", help="Accept a new reason for doubt, or replace a damaged baseline.")
    ] = False,
) -> None:
    """Accept what a check found (its *.obtained.json files), or stored results, as a baseline."""
    from robusteval.cli.options import open_store
    from robusteval.scoring.baseline_cell import BaselineError
    from robusteval.scoring.baseline_evidence import write_evidence
    from robusteval.scoring.baselines import load_baseline, load_obtained, write_baseline

    place = folder / name
    try:
        seen = load_baseline(place)
    except BaselineError:
        if not force:
            raise
        seen = None
    if source is not None:
        cells = _stored_cells(name, source, store)
        write_evidence(place, cells, open_store(_place(source, store)))
        written = write_baseline(place, cells, seen, force=force)
    else:
        obtained = load_obtained(place)
        if obtained is None:
            raise BaselineError(
                f"{place}: no check left *.obtained.json there; run the check, or give --from SUITE:ROW"
            )
        here = {cell.stem for cell in obtained.cells}
        partial = seen is not None and {cell.stem for cell in seen.cells} - here != set()
        written = write_baseline(place, obtained.cells, seen, force=force, partial=partial)
    for cell in written.cells:
        print(f"{place / cell.stem}.json  {cell.cell}: {cell.accuracy}")


def _stored_cells(name: str, source: str, store: str) -> tuple[BaselineCell, ...]:
    from robusteval.cli.operands import Context, read_side
    from robusteval.cli.options import open_store
    from robusteval.schema.cells import CellStart, TrainCell
    from robusteval.schema.errors import UsageError
    from robusteval.scoring.baseline_cell import make_cells

    side = read_side(source, Context(store, None, "cpu"))
    if len(side.rows) != 1:
        first = next(iter(side.rows))
        raise UsageError(f"--from {source!r}: a baseline is about one model; name its row, as {source}:{first}")
    ((_, roles),) = side.rows.items()
    record = next(iter(next(iter(roles.values())).values()))
    family = "given weights"
    model = getattr(record.cell, "model", None)
    if isinstance(model, CellStart):
        trained = open_store(_place(source, store)).get(model.cell).cell
        assert isinstance(trained, TrainCell)
        family = trained.architecture.name
    suite = source.rpartition("::")[2].rpartition(":")[0]
    return make_cells(name, suite, family, roles, side.groups)


def _place(source: str, store: str) -> str:
    """The store that an operand is about."""
    return source.partition("::")[0] if "::" in source else store


def show(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One baseline.", show_default=False)] = None,
    folder: FolderOption = DEFAULT_FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Show the baselines of a folder, or the cells of one."""
    from robusteval.cli import render

    found = _baselines(folder, name)
    cells = [cell for baseline in found for cell in baseline.cells]
    if as_json:
        left_out = {"record", "groups"}
        print(json.dumps([cell.model_dump(mode="json", exclude=left_out) for cell in cells], indent=2))
        return
    rows = [
        [cell.baseline, cell.suite, cell.family, cell.cell, cell.accuracy, ", ".join(cell.doubts) or "-"]
        for cell in cells
    ]
    header = ["baseline", "suite", "family", "cell", "accuracy", "doubts"]
    render.print_table(header, rows, [] if rows else [f"there is no baseline in {folder}"])


def _baselines(folder: Path, name: str | None) -> list[Baseline]:
    from robusteval.schema.errors import UsageError, unknown_name
    from robusteval.scoring.baselines import load_baseline

    there = sorted(path for path in folder.glob("*") if path.is_dir())
    if name is not None and name not in {path.name for path in there}:
        raise UsageError(unknown_name(f"baseline in {folder}", name, [path.name for path in there]))
    loaded = [load_baseline(path) for path in there if name in (None, path.name)]
    return [baseline for baseline in loaded if baseline is not None]


def drift(
    name: NameArgument,
    folder: FolderOption = DEFAULT_FOLDER,
    margin: MarginOption = None,
    sensitivity: SensitivityOption = 2.0,
    alpha: AlphaOption = 0.05,
    form: FormatOption = ComparisonFormat.TABLE,
    strict: StrictOption = False,
) -> None:
    """Compare a baseline with the best one ever accepted.

    Many drops that were each too small to see add up here. Exit codes as those of compare.
    """
    from robusteval.schema.errors import UsageError
    from robusteval.scoring.baselines import load_best
    from robusteval.scoring.sides import compare_sides

    found = _baselines(folder, name)
    best = load_best(folder / name)
    if not found or best is None:
        raise UsageError(f"{folder / name}: nothing was ever accepted there; robusteval baseline save {name}")
    rule = make_rule(margin=margin, sensitivity=sensitivity, alpha=alpha)
    comparison = compare_sides(best.side(f"best {name}"), found[0].side(), rule)
    print_comparison(comparison, form)
    if comparison.verdict == "regressed":
        print(f"note: {name} has drifted from the best that was accepted", file=sys.stderr)
    end_with_verdict(comparison, strict=strict)
