"""The command that puts results on a leaderboard, or verifies an entry: submit."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robusteval.cli.entries import Asked, assemble, no_results, stored_plan
from robusteval.cli.options import (
    DEFAULT_STORE,
    DeviceOption,
    JsonOption,
    MeanOption,
    StdOption,
    StoreOption,
    TrustCodeOption,
    examples,
    open_store,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robusteval.leaderboard.boards import Board
    from robusteval.leaderboard.findings import Finding
    from robusteval.leaderboard.shelf import Shelf

NOT_MADE = 2
REFUSED, MISSING = "refused", "not made"


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        epilog=examples(
            "robusteval submit erm --board digits --claims about.json",
            "robusteval submit --all-rows --board ./leaderboards/digits",
            "robusteval submit model.safetensors --board digits --id mine",
            "robusteval submit timm:resnet18 --board ./boards/cifar10-cpu --id resnet18 --device cuda",
            "robusteval submit mypackage:load --trust-code --board digits --id mine",
            "robusteval submit --check entry.json --board digits",
            "robusteval submit --check entry.json --board ./leaderboards/digits --json",
        )
    )(submit)


def submit(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL|ROW]...",
            help="A model, or several as training seeds of one: a .safetensors file, timm:NAME, robustbench:ID, or "
            "MODULE:FACTORY with --trust-code. Or a row of the board's suite. What is not stored is measured first.",
        ),
    ] = None,
    board: Annotated[
        str, typer.Option(metavar="BOARD", help="Board it is for, by name or folder.", show_default=False)
    ] = "",
    check_path: Annotated[
        Path | None,
        typer.Option("--check", metavar="FILE", help="Only verify this entry, offline.", show_default=False),
    ] = None,
    all_rows: Annotated[
        bool, typer.Option("--all-rows", help="Every row of the board's suite, each as an entry of its own.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    entry_id: Annotated[str, typer.Option("--id", metavar="ID", help="Id of the entry; the row by default.")] = "",
    claims: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON with title, authors, paper, code, licence, ...", show_default=False),
    ] = None,
    supersedes: Annotated[
        str | None, typer.Option(metavar="ID", help="Entry that this one corrects.", show_default=False)
    ] = None,
    reproduces: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Entry whose cells were measured again, elsewhere.", show_default=False),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(metavar="FILE", help="The board's suite, if it is not packaged.", show_default=False)
    ] = None,
    trust_code: TrustCodeOption = False,
    mean: MeanOption = None,
    std: StdOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure a model for a leaderboard and put it there, or verify an entry; exit 6 if it is refused.

    Everything that can be recomputed is recomputed: keys, digests, and every number from its outcome bits.
    """
    from robusteval.leaderboard.boards import load_board
    from robusteval.leaderboard.check import check_file, check_new
    from robusteval.leaderboard.places import find_board
    from robusteval.leaderboard.shelf import Shelf
    from robusteval.schema.errors import UsageError

    if not board or sum((bool(what), check_path is not None, all_rows)) != 1:
        raise UsageError("give --board, and either a model, a row of its suite, --all-rows, or --check FILE")
    place = find_board(board)
    loaded, shelf = load_board(place), Shelf(place)
    if check_path is not None:
        if not check_path.is_file():
            raise UsageError(f"--check {check_path}: no such file")
        entry, findings = check_file(check_path, loaded, shelf)
        _verdict(check_path.name if entry is None else entry.id, loaded, findings, as_json, "accepted")
        return
    asked = Asked(
        tuple(what or ()), store, suite, device, entry_id, trust_code, (mean, std), claims, supersedes, reproduces
    )
    if all_rows:
        _submit_rows(loaded, shelf, asked, as_json=as_json)
        return
    entry = assemble(loaded, shelf, asked)
    findings = check_new(entry, loaded, shelf)
    if not findings:
        shelf.add(entry)
    _verdict(entry.id, loaded, findings, as_json, f"written to {shelf.path(entry.id)}")


def _submit_rows(board: Board, shelf: Shelf, asked: Asked, *, as_json: bool) -> None:
    """Submit every row of the board's suite that is not there yet; one that is refused does not stop the others."""
    from robusteval.leaderboard.findings import REJECTED
    from robusteval.schema.errors import UsageError

    if asked.entry_id or asked.supersedes or asked.reproduces:
        raise UsageError("--id, --supersedes and --reproduces are about one row; --all-rows submits several")
    place = open_store(asked.store)
    plan = stored_plan(board, place)
    if plan is None:
        raise UsageError(no_results(board, place))
    verdicts = {label: _submit_row(board, shelf, replace(asked, words=(label,))) for label in plan.labels}
    if as_json:
        rows = [_document(name, findings) | {"state": state} for name, (state, findings) in verdicts.items()]
        print(json.dumps({"board": board.name, "entries": rows}, indent=2))
    else:
        counts = Counter(state for state, _ in verdicts.values())
        print(f"{shelf.folder}: {', '.join(f'{number} {state}' for state, number in counts.items())}")
    for name, (_, findings) in verdicts.items():
        for finding in findings:
            print(f"{name}: {finding}", file=sys.stderr)
    states = {state for state, _ in verdicts.values()}
    if states & {REFUSED, MISSING}:
        raise typer.Exit(REJECTED if REFUSED in states else NOT_MADE)


def _submit_row(board: Board, shelf: Shelf, asked: Asked) -> tuple[str, Sequence[Finding]]:
    """What became of one row, and the reasons if it is not on the board."""
    from robusteval.leaderboard.check import check_new
    from robusteval.leaderboard.findings import Finding
    from robusteval.schema.errors import RobustevalError

    try:
        entry = assemble(board, shelf, asked)
        path = shelf.path(entry.id)
        if path.is_file() and shelf.read_file(path).records == entry.records:
            return "there already", ()
        findings = check_new(entry, board, shelf)
        if not findings:
            shelf.add(entry)
    except RobustevalError as error:
        return MISSING, [Finding("row", str(error))]
    return (REFUSED if findings else "written"), findings


def _verdict(name: str, board: Board, findings: Sequence[Finding], as_json: bool, done: str) -> None:
    from robusteval.leaderboard.findings import REJECTED

    if as_json:
        print(json.dumps(_document(name, findings) | {"board": board.name}, indent=2))
    elif not findings:
        print(f"{name}: {done}; it fits board {board.name}, and every number is what its outcomes say")
    for finding in findings:
        print(f"{name}: {finding}", file=sys.stderr)
    if findings:
        raise typer.Exit(REJECTED)


def _document(name: str, findings: Sequence[Finding]) -> dict[str, Any]:
    listed = [{"code": finding.code, "text": finding.text} for finding in findings]
    return {"entry": name, "accepted": not findings, "findings": listed}
