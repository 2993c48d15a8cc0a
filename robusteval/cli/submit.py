"""The command that puts results on a leaderboard, or verifies an entry: submit."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robusteval.cli.options import DEFAULT_STORE, DeviceOption, JsonOption, StoreOption, examples, open_store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from robusteval.leaderboard.boards import Board
    from robusteval.leaderboard.entries import Entry
    from robusteval.leaderboard.findings import Finding
    from robusteval.schema.plans import RowSeed
    from robusteval.schema.records import ResultRecord
    from robusteval.store.store import Store


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        epilog=examples(
            "robusteval submit erm --board digits --claims about.json",
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
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Allow MODULE:FACTORY, which runs that code.")
    ] = False,
    mean: Annotated[
        str | None, typer.Option(metavar="M,M,M", help="Mean the network expects.", show_default=False)
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="S,S,S", help="Standard deviation it expects.", show_default=False)
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure a model for a leaderboard and put it there, or verify an entry; exit 6 if it is refused.

    Everything that can be recomputed is recomputed: keys, digests, and every number from its outcome bits.
    """
    from robusteval.leaderboard.boards import find_board, load_board
    from robusteval.leaderboard.check import check_file, check_new
    from robusteval.leaderboard.shelf import Shelf
    from robusteval.schema.errors import UsageError

    if not board or bool(what) == (check_path is not None):
        raise UsageError("give --board, and either a model, a row of its suite, or --check FILE")
    place = find_board(board)
    loaded, shelf = load_board(place), Shelf(place)
    if check_path is not None:
        if not check_path.is_file():
            raise UsageError(f"--check {check_path}: no such file")
        entry, findings = check_file(check_path, loaded, shelf)
        _verdict(check_path.name if entry is None else entry.id, loaded, findings, as_json, "accepted")
        return
    asked = _Asked(tuple(what or ()), store, suite, device, entry_id, trust_code=trust_code, shown=(mean, std))
    entry = _assemble(loaded, asked, claims, supersedes, reproduces)
    findings = check_new(entry, loaded, shelf)
    if not findings:
        shelf.add(entry)
    _verdict(entry.id, loaded, findings, as_json, f"written to {shelf.path(entry.id)}")


@dataclass(frozen=True)
class _Asked:
    """What is to be submitted.

    Attributes:
        words: models, or one row.
        store: place of results.
        suite: file of the board's suite, or None.
        device: where models run.
        entry_id: id of the entry, or empty.
        trust_code: whether code of modules may run.
        shown: mean and standard deviation that the models expect, as written.
    """

    words: tuple[str, ...]
    store: str
    suite: str | None
    device: str
    entry_id: str
    trust_code: bool
    shown: tuple[str | None, str | None]


def _assemble(
    board: Board, asked: _Asked, claims: Path | None, supersedes: str | None, reproduces: str | None
) -> Entry:
    from robusteval.cli.model_names import is_model
    from robusteval.leaderboard.assemble import assemble_entry
    from robusteval.leaderboard.claims import read_claims
    from robusteval.leaderboard.entries import Entry
    from robusteval.leaderboard.text import stem_of
    from robusteval.schema.errors import UsageError

    if board.suite is None:
        raise UsageError(f"board {board.name} keeps reported numbers only; submit to a board of a suite")
    models = [word for word in asked.words if is_model(word)]
    if len(models) != len(asked.words) and len(asked.words) > 1:
        raise UsageError(f"{' '.join(asked.words)[:80]}: give one row, or models only")
    last = asked.words[0].rpartition(":")[2] if models else asked.words[0]
    name = asked.entry_id or (stem_of(Path(last).stem if last.endswith(".safetensors") else last) if models else last)
    entry_id, about = file_name(name), read_claims(claims, name)
    place = open_store(asked.store)
    rows, records = _measured(board, asked, entry_id) if models else _stored(board, asked, place)
    entry = assemble_entry(board, entry_id, about, rows, records, place.groups, supersedes)
    if reproduces is not None:
        entry = Entry.model_validate({**entry.model_dump(), "badge": "reproduced", "reproduces": reproduces})
    return entry


def _measured(board: Board, asked: _Asked, label: str) -> tuple[Sequence[RowSeed], Mapping[str, ResultRecord]]:
    """Rows of models, measured where the store has no result."""
    from robusteval.cli.evaluate import numbers
    from robusteval.cli.model_names import named_model
    from robusteval.schema.registry import load_target

    assert board.suite is not None
    mean, std = numbers("mean", asked.shown[0]), numbers("std", asked.shown[1])
    found: tuple[list[RowSeed], dict[str, ResultRecord]] = load_target("robusteval.api.submission:model_rows")(
        board,
        [named_model(word, trust_code=asked.trust_code) for word in asked.words],
        asked.suite or board.suite.name,
        label,
        store=asked.store,
        device=asked.device,
        mean=mean,
        std=std,
    )
    return found


def _stored(board: Board, asked: _Asked, place: Store) -> tuple[Sequence[RowSeed], Mapping[str, ResultRecord]]:
    """A row of the board's suite, run where the store lacks results and the suite is known."""
    from robusteval.leaderboard.boards import role_columns
    from robusteval.planning.names import packaged_suites
    from robusteval.schema.errors import UsageError, unknown_name
    from robusteval.schema.registry import load_target

    assert board.suite is not None
    row, suite = asked.words[0], board.suite
    source = asked.suite or (suite.name if suite.name in packaged_suites() else None)
    plan = place.get_plan(suite.name, suite.version)
    if plan is not None and row not in plan.labels:
        raise UsageError(unknown_name("row", row, plan.labels))
    roles = [role for role, _ in role_columns(board)]
    keys = set() if plan is None else {one.cells[role] for one in plan.row(row) for role in roles if role in one.cells}
    if source is not None and (plan is None or any(place.state(key)[0] != "done" for key in keys)):
        load_target("robusteval.api.submission:run_row")(board, source, row, store=asked.store, device=asked.device)
        plan = place.get_plan(suite.name, suite.version)
    if plan is None:
        name = f"{suite.name}@{suite.version}"
        raise UsageError(f"{place.uri} has no results of {name}; give its file with --suite, and they are made")
    rows = plan.row(row)
    keys = {one.cells[role] for one in rows for role in roles if role in one.cells}
    return rows, {key: record for key in keys if (record := place.latest(key)) is not None}


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
