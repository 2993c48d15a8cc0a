"""Entries for a leaderboard out of models, or out of stored rows of its suite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robusteval.cli.options import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from robusteval.leaderboard.boards import Board
    from robusteval.leaderboard.entries import Claims, Entry
    from robusteval.leaderboard.shelf import Shelf
    from robusteval.schema.plans import RowSeed, StoredPlan
    from robusteval.schema.records import ResultRecord
    from robusteval.store.store import Store


@dataclass(frozen=True)
class Asked:
    """What is to be submitted.

    Attributes:
        words: models, or one row.
        store: place of results.
        suite: file of the board's suite, or None.
        device: where models run.
        entry_id: id of the entry, or empty.
        trust_code: whether code of modules may run.
        shown: mean and standard deviation that the models expect, as written.
        claims: file with what the submitter says, or None.
        supersedes: id of the entry that this one corrects, or None.
        reproduces: id of the entry whose cells were measured again, or None.
    """

    words: tuple[str, ...]
    store: str
    suite: str | None
    device: str
    entry_id: str
    trust_code: bool
    shown: tuple[str | None, str | None]
    claims: Path | None
    supersedes: str | None
    reproduces: str | None


def assemble(board: Board, shelf: Shelf, asked: Asked) -> Entry:
    """The entry of a row or of models; what the store lacks is measured first.

    Raises:
        UsageError: there is no such row or model, or the claims make no sense.
        CellError: cells failed.
    """
    from robusteval.cli.model_names import is_model
    from robusteval.leaderboard.assemble import assemble_entry
    from robusteval.leaderboard.claims import read_claims
    from robusteval.leaderboard.entries import Entry
    from robusteval.leaderboard.text import stem_of
    from robusteval.schema.errors import UsageError

    models = [word for word in asked.words if is_model(word)]
    if len(models) != len(asked.words) and len(asked.words) > 1:
        raise UsageError(f"{' '.join(asked.words)[:80]}: give one row, or models only")
    if models and board.folds:
        raise UsageError(f"board {board.name} trains every row once a fold; submit a row of its suite, not a model")
    last = asked.words[0].rpartition(":")[2] if models else asked.words[0]
    name = asked.entry_id or (stem_of(Path(last).stem if last.endswith(".safetensors") else last) if models else last)
    entry_id, about = file_name(name), read_claims(asked.claims, name)
    place = open_store(asked.store)
    rows, records = _measured(board, asked, entry_id) if models else _stored(board, asked, place)
    entry = assemble_entry(board, entry_id, _completed(about, rows, place), rows, records, shelf.groups)
    changes = {"supersedes": asked.supersedes}
    if asked.reproduces is not None:
        changes |= {"badge": "reproduced", "reproduces": asked.reproduces}
    return Entry.model_validate({**entry.model_dump(), **changes})


def stored_plan(board: Board, place: Store) -> StoredPlan | None:
    """The stored plan of the board's suite; None if nothing is stored of it.

    Raises:
        UsageError: the board has no suite.
    """
    from robusteval.schema.errors import UsageError

    if board.suite is None:
        raise UsageError(f"board {board.name} keeps reported numbers only; submit to a board of a suite")
    return place.get_plan(board.suite.name, board.suite.version)


def no_results(board: Board, place: Store) -> str:
    """What to say where a store has nothing of the board's suite."""
    suite = board.suite
    name = "its suite" if suite is None else f"{suite.name}@{suite.version}"
    return f"{place.uri} has no results of {name}; give its file with --suite, and they are made"


def _completed(claims: Claims, rows: Sequence[RowSeed], place: Store) -> Claims:
    """The claims with the network that was trained, if the submitter does not name one."""
    from robusteval.schema.cells import TrainCell

    key = rows[0].train_key
    record = None if claims.architecture or key is None else place.latest(key)
    if record is None or not isinstance(record.cell, TrainCell):
        return claims
    return claims.model_copy(update={"architecture": record.cell.architecture.name})


def _measured(board: Board, asked: Asked, label: str) -> tuple[Sequence[RowSeed], Mapping[str, ResultRecord]]:
    """Rows of models, measured where the store has no result."""
    from robusteval.cli.evaluate import numbers
    from robusteval.cli.model_names import named_model
    from robusteval.schema.errors import UsageError
    from robusteval.schema.registry import load_target

    if board.suite is None:
        raise UsageError(f"board {board.name} keeps reported numbers only; submit to a board of a suite")
    load_target("robusteval.api.submission:same_suite")(board, asked.suite or board.suite.name)
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


def _stored(board: Board, asked: Asked, place: Store) -> tuple[Sequence[RowSeed], Mapping[str, ResultRecord]]:
    """A row of the board's suite, run where the store lacks results and the suite is known."""
    from robusteval.leaderboard.boards import role_columns
    from robusteval.planning.names import packaged_suites
    from robusteval.schema.errors import UsageError, unknown_name
    from robusteval.schema.registry import load_target

    row, plan = asked.words[0], stored_plan(board, place)
    assert board.suite is not None
    source = asked.suite or (board.suite.name if board.suite.name in packaged_suites() else None)
    if plan is not None and row not in plan.labels:
        raise UsageError(unknown_name("row", row, plan.labels))
    roles = [role for role, _ in role_columns(board)]
    keys = set() if plan is None else {one.cells[role] for one in plan.row(row) for role in roles if role in one.cells}
    if source is not None and (plan is None or any(place.state(key)[0] != "done" for key in keys)):
        load_target("robusteval.api.submission:run_row")(board, source, row, store=asked.store, device=asked.device)
        plan = stored_plan(board, place)
    if plan is None:
        raise UsageError(no_results(board, place))
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
