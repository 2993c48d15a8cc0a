"""Commands about leaderboards: board ls, show, check, init, import, build."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robusteval.cli.entries import file_name
from robusteval.cli.options import DEFAULT_STORE, JsonOption, StoreOption, examples, open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

BROKEN = 2

boards = typer.Typer(
    name="board",
    help="Leaderboards: list, rank, verify, import published results, write the site.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


class System(StrEnum):
    """Whose results can be imported."""

    ROBUSTBENCH = "robustbench"
    OODROBUSTBENCH = "oodrobustbench"
    DOMAINBED = "domainbed"


BoardArgument = Annotated[
    str, typer.Argument(metavar="BOARD", help="Name of a packaged board, or its folder.", show_default=False)
]
FolderOption = Annotated[
    Path | None,
    typer.Option("--boards", metavar="DIR", help="Folder of boards; the packaged ones by default.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(boards)


@boards.command(name="ls", epilog=examples("robusteval board ls", "robusteval board ls --boards ./leaderboards --json"))
def list_boards(folder: FolderOption = None, as_json: JsonOption = False) -> None:
    """List boards with their numbers of entries."""
    from robusteval.cli import render
    from robusteval.leaderboard.boards import load_board
    from robusteval.leaderboard.places import boards_folder, boards_in
    from robusteval.leaderboard.shelf import Shelf

    listed = []
    problems: list[str] = []
    for name, place in boards_in(folder or boards_folder()).items():
        board, contents = load_board(place), Shelf(place).read()
        active = contents.active()
        problems += contents.problems
        measured = sum(entry.measured for entry in active)
        listed.append({"name": name, "measured": measured, "reported": len(active) - measured, "title": board.title})
    if as_json:
        print(json.dumps(listed, indent=2))
    else:
        rows = [[str(value) for value in row.values()] for row in listed]
        note = f"no boards in {folder or boards_folder()}; `robusteval board import` makes some"
        render.print_table(["name", "measured", "reported", "title"], rows, [] if rows else [note])
    _end(problems)


@boards.command(
    epilog=examples("robusteval board show cifar10-linf", "robusteval board show ./leaderboards/digits --json")
)
def show(
    board: BoardArgument,
    as_json: JsonOption = False,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many rows of each group.")] = 50,
) -> None:
    """Rank a board: measured entries first, reported ones apart, ties marked."""
    from robusteval.cli import render
    from robusteval.data.places import cache_folder
    from robusteval.leaderboard.places import find_board
    from robusteval.leaderboard.ranked import ranked_document

    place = find_board(board)
    ranked = ranked_document(place, cache_folder())
    if as_json:
        print(json.dumps(ranked["document"], indent=2))
    else:
        for section in ranked["sections"]:
            rest = len(section["rows"]) - top
            notes = [section["note"], *([f"{rest} more; --top shows them"] if rest > 0 else [])]
            render.print_table(section["header"], section["rows"][:top], notes, title=section["title"])
        if not ranked["sections"]:
            print(f"{place.name} has no entries yet")
    _end(ranked["problems"])


@boards.command(
    epilog=examples(
        "robusteval board check", "robusteval board check ./leaderboards/digits", "robusteval board check --json"
    )
)
def check(
    board: Annotated[
        list[str] | None, typer.Argument(metavar="[BOARD]...", help="Boards; all packaged ones by default.")
    ] = None,
    folder: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify boards and every entry on them; exit 6 if any is refused."""
    from robusteval.leaderboard.boards import load_board
    from robusteval.leaderboard.check import check_shelf
    from robusteval.leaderboard.findings import REJECTED
    from robusteval.leaderboard.places import boards_folder, boards_in, find_board
    from robusteval.leaderboard.shelf import Shelf

    places = [find_board(name) for name in board] if board else list(boards_in(folder or boards_folder()).values())
    found: dict[str, list[str]] = {}
    checked = 0
    for place in places:
        count, problems = check_shelf(load_board(place), Shelf(place))
        checked += count
        found |= problems
    if as_json:
        print(json.dumps({"entries": checked, "problems": found}, indent=2))
    else:
        print(f"{checked} entries on {len(places)} boards; {len(found)} refused")
    for name, lines in found.items():
        for line in lines:
            print(f"{name}: {line}", file=sys.stderr)
    if found:
        raise typer.Exit(REJECTED)


@boards.command(
    name="init",
    epilog=examples(
        "robusteval board init digits --out leaderboards",
        "robusteval board init digits --out leaderboards --name digits-ood --order r_ood,a_ood",
    ),
)
def found(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="Suite with stored results.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of boards to write to.", show_default=False)],
    store: StoreOption = DEFAULT_STORE,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the board; the suite's by default.")] = "",
    title: Annotated[str, typer.Option(metavar="TEXT", help="What it ranks; the suite's summary by default.")] = "",
    order: Annotated[str, typer.Option(metavar="COLUMNS", help="Columns that decide the order, as r_id,a_id.")] = "",
) -> None:
    """Found a board on a suite that has been run: its examples, threats and attacks become the rules."""
    from robusteval.cli.lookup import find_plan
    from robusteval.leaderboard.boards import board_yaml
    from robusteval.leaderboard.founding import found_board
    from robusteval.leaderboard.shelf import Shelf
    from robusteval.schema.errors import UsageError
    from robusteval.store.atomic import create_atomically

    place = open_store(store)
    plan = find_plan(place, suite)
    if plan is None:
        raise UsageError(f"{suite!r} is a key; give a suite")
    keys = {key for row in plan.rows for key in row.cells.values()}
    records = {key: record for key in keys if (record := place.latest(key)) is not None}
    wanted = [part.strip() for part in order.split(",")] if order else []
    board = found_board(plan, records, file_name(name or plan.suite, "--name"), title, wanted)
    shelf = Shelf(out / board.name)
    for digest in sorted({digest for ids in board.examples.values() for digest in ids.values()}):
        ids, groups = place.ids(digest)
        shelf.add_ids(ids, ids if groups is None else groups)
    if not create_atomically(
        shelf.folder / "board.yaml", board_yaml(board, f"Founded on {plan.suite}@{plan.version}.").encode()
    ):
        raise UsageError(f"{shelf.folder / 'board.yaml'}: is there already, and boards are not overwritten")
    print(f"{shelf.folder}: {', '.join(board.keys)}; submit rows with `robusteval submit ROW --board {shelf.folder}`")


@boards.command(
    name="import",
    epilog=examples(
        "robusteval board import robustbench robustbench/model_info --out leaderboards",
        "robusteval board import oodrobustbench rows.csv --out boards --json",
        "robusteval board import domainbed train_output/sweep --out boards",
    ),
)
def import_results(
    system: Annotated[System, typer.Argument(help="Whose format it is.", show_default=False)],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder or file.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of boards to write to.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Import published results as reported entries; what cannot be read is named, the rest is imported, exit 2."""
    from robusteval.leaderboard.importers import importer
    from robusteval.leaderboard.importers.report import write_import
    from robusteval.schema.errors import UsageError

    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; give a folder")
    found = importer(system.value)(path)
    try:
        written = write_import(found, out)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written ({error.strerror or error})") from None
    problems = [*found.problems, *written.problems]
    summary = {
        "read": found.counts,
        "boards": {name: len(entries) for name, entries in sorted(found.entries.items())},
        "added": written.added,
        "unchanged": written.unchanged,
        "superseding": written.superseding,
        "problems": problems,
    }
    if as_json:
        print(json.dumps(summary, indent=2))
    else:
        counts = ", ".join(f"{number:,} {what}" for what, number in found.counts.items()) or "nothing"
        print(f"read {counts}; {written.added} entries added, {written.unchanged} unchanged, ", end="")
        print(f"{written.superseding} superseding older ones, on {len(found.entries)} boards in {out}")
    _end(problems)


@boards.command(
    epilog=examples(
        "robusteval board build --out site",
        "robusteval board build --boards ./leaderboards --out site",
        "robusteval board build digits --out site --check    # exit 1 if the site is not up to date",
    )
)
def build(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the site.", show_default=False)],
    board: Annotated[
        list[str] | None, typer.Argument(metavar="[BOARD]...", help="Boards; all packaged ones by default.")
    ] = None,
    folder: FolderOption = None,
    compare: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if any file would change.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the static site: opens with a double click, asks no server for anything."""
    from robusteval.leaderboard.places import boards_folder, boards_in, find_board
    from robusteval.leaderboard.site.build import build_site
    from robusteval.schema.errors import UsageError

    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; give a folder")
    places = [find_board(name) for name in board] if board else list(boards_in(folder or boards_folder()).values())
    try:
        report = build_site(places, out, check=compare)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written ({error.strerror or error})") from None
    if as_json:
        shown = {"pages": report.pages, "differing": report.differing, "problems": report.problems}
        print(json.dumps(shown, indent=2))
    elif compare:
        print(f"{len(report.differing)} of {report.pages} files differ from {out}")
    else:
        print(f"{report.pages} files in {out}; open {out / 'index.html'}")
    for name in report.differing:
        print(f"{out / name}: differs or is missing", file=sys.stderr)
    _end(report.problems)
    if report.differing:
        raise typer.Exit(1)


def _end(problems: Sequence[str]) -> None:
    for line in problems:
        print(line, file=sys.stderr)
    if problems:
        raise typer.Exit(BROKEN)
