"""The command that puts results on a leaderboard, or verifies an entry: submit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robusteval.cli.options import DEFAULT_STORE, JsonOption, StoreOption, examples, open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robusteval.leaderboard.boards import Board
    from robusteval.leaderboard.entries import Entry
    from robusteval.leaderboard.findings import Finding
    from robusteval.store.store import Store


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        epilog=examples(
            "robusteval submit erm --board digits --claims about.json",
            "robusteval submit --check entry.json --board digits",
            "robusteval submit --check entry.json --board ./leaderboards/digits --json",
        )
    )(submit)


def submit(
    row: Annotated[
        str, typer.Argument(metavar="[ROW]", help="Row of the board's suite whose stored results are submitted.")
    ] = "",
    board: Annotated[
        str, typer.Option(metavar="BOARD", help="Board it is for, by name or folder.", show_default=False)
    ] = "",
    check_path: Annotated[
        Path | None,
        typer.Option("--check", metavar="FILE", help="Only verify this entry, offline.", show_default=False),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    entry_id: Annotated[str, typer.Option("--id", metavar="ID", help="Id of the entry; the row by default.")] = "",
    claims: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON with title, authors, paper, code, licence, ...", show_default=False),
    ] = None,
    supersedes: Annotated[
        str | None, typer.Option(metavar="ID", help="Entry that this one corrects.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put stored results on a leaderboard, or verify an entry; exit 6 if it is refused.

    Everything that can be recomputed is recomputed: keys, digests, and every number from its outcome bits.
    """
    from robusteval.leaderboard.boards import find_board, load_board
    from robusteval.leaderboard.check import check_file, check_new
    from robusteval.leaderboard.shelf import Shelf
    from robusteval.schema.errors import UsageError

    if not board or bool(row) == (check_path is not None):
        raise UsageError("give --board, and either a row of its suite or --check FILE")
    place = find_board(board)
    loaded, shelf = load_board(place), Shelf(place)
    if check_path is not None:
        if not check_path.is_file():
            raise UsageError(f"--check {check_path}: no such file")
        entry, findings = check_file(check_path, loaded, shelf)
        _verdict(check_path.name if entry is None else entry.id, loaded, findings, as_json, "accepted")
        return
    entry = _assemble(loaded, open_store(store), row, (entry_id or row, claims, supersedes))
    findings = check_new(entry, loaded, shelf)
    if not findings:
        shelf.add(entry)
    _verdict(entry.id, loaded, findings, as_json, f"written to {shelf.path(entry.id)}")


def _assemble(board: Board, place: Store, row: str, about: tuple[str, Path | None, str | None]) -> Entry:
    from robusteval.leaderboard.assemble import assemble_entry
    from robusteval.leaderboard.boards import role_columns
    from robusteval.leaderboard.claims import read_claims
    from robusteval.schema.errors import UsageError, unknown_name

    if board.suite is None:
        raise UsageError(f"board {board.name} keeps reported numbers only; submit to a board of a suite")
    plan = place.get_plan(board.suite.name, board.suite.version)
    if plan is None:
        name = f"{board.suite.name}@{board.suite.version}"
        raise UsageError(f"{place.uri} has no results of {name}; `robusteval run {board.suite.name}` makes some")
    if row not in plan.labels:
        raise UsageError(unknown_name("row", row, plan.labels))
    rows = plan.row(row)
    keys = {seed.cells[role] for seed in rows for role, _ in role_columns(board) if role in seed.cells}
    records = {key: record for key in keys if (record := place.latest(key)) is not None}
    entry_id, claims, supersedes = about
    return assemble_entry(
        board, file_name(entry_id), read_claims(claims, entry_id), rows, records, place.groups, supersedes
    )


def file_name(text: str, option: str = "--id") -> str:
    """A name that becomes part of a path, unchanged.

    Raises:
        UsageError: it cannot.
    """
    from robusteval.leaderboard.text import stem_of
    from robusteval.schema.errors import UsageError

    if stem_of(text) != text:
        raise UsageError(f"{option} {text[:80]!r} cannot be a file name; write {stem_of(text)}")
    return text


def _verdict(name: str, board: Board, findings: Sequence[Finding], as_json: bool, done: str) -> None:
    from robusteval.leaderboard.findings import REJECTED

    if as_json:
        listed = [{"code": finding.code, "text": finding.text} for finding in findings]
        print(json.dumps({"entry": name, "board": board.name, "accepted": not findings, "findings": listed}, indent=2))
    elif not findings:
        print(f"{name}: {done}; it fits board {board.name}, and every number is what its outcomes say")
    for finding in findings:
        print(f"{name}: {finding}", file=sys.stderr)
    if findings:
        raise typer.Exit(REJECTED)
