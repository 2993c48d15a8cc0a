"""Verifying an entry without a GPU and without the model: everything that can be recomputed is recomputed.

What passes is consistent and complete: its keys and digests are those of its content, its numbers are the means of
its outcome bits, and it was measured on the board's examples, under the board's threat models, with at least the
board's budget. Whether the bits are true only running the model can tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from robusteval.leaderboard.beside import against_others
from robusteval.leaderboard.boards import Board, role_columns
from robusteval.leaderboard.entries import BrokenEntryError, Entry, Value
from robusteval.leaderboard.findings import Finding
from robusteval.leaderboard.protocols import protocol_digest
from robusteval.leaderboard.recount import TOLERANCE, column_values, metric_problems
from robusteval.leaderboard.shelf import Shelf
from robusteval.schema.cells import CellStart, EvalCell
from robusteval.schema.errors import CorruptRecordError, unknown_name
from robusteval.schema.plans import RowSeed
from robusteval.schema.records import ResultRecord
from robusteval.scoring.outcomes import Groups, each_alone


def check_file(path: Path, board: Board, shelf: Shelf) -> tuple[Entry | None, list[Finding]]:
    """Read an entry file and check it against its board and the entries that are there.

    Returns:
        The entry, or None if the file is not one, and every reason to refuse it.
    """
    try:
        entry = shelf.read_file(path)
    except BrokenEntryError as error:
        return None, [Finding("format", str(error))]
    others = shelf.read().entries
    same = shelf.path(entry.id)
    if same.is_file() and path.resolve() == same.resolve():
        others = {name: other for name, other in others.items() if name != entry.id}
    found = check_entry(entry, board, shelf.groups)
    return entry, found + list(against_others(entry, others))


def check_new(entry: Entry, board: Board, shelf: Shelf) -> list[Finding]:
    """Every reason not to put an entry on a board."""
    return check_entry(entry, board, shelf.groups) + list(against_others(entry, shelf.read().entries))


def check_entry(entry: Entry, board: Board, groups: Groups = each_alone) -> list[Finding]:
    """Every reason to refuse an entry, looking at it alone.

    Args:
        entry: the entry.
        board: the board it wants to be on.
        groups: from an ids digest to the group of each example.
    """
    found = list(_belongs(entry, board)) + list(_values_in_range(entry, board))
    if not entry.measured:
        return found
    found += _complete(entry, board)
    for row in entry.rows:
        for role, key in row.cells.items():
            record = next((record for record in entry.records if record.cell_key == key), None)
            if record is not None:
                found += _record(role, row, record, board)
    for record in entry.records:
        found += [Finding("metric", text) for text in metric_problems(record)]
    found += _columns(entry, board, groups)
    found += _flags(entry)
    return found


def _belongs(entry: Entry, board: Board) -> Iterator[Finding]:
    if entry.board != board.name:
        yield Finding("board", f"the entry is for board {entry.board!r}, not {board.name!r}")
    for key in entry.columns:
        if key not in board.keys:
            yield Finding("column", unknown_name("column", key, board.keys))
    if not entry.measured:
        return
    if board.suite is None:
        yield Finding("suite", f"board {board.name} keeps reported numbers only; it has no suite to measure with")
    elif entry.suite != board.suite:
        named = "no suite" if entry.suite is None else f"{entry.suite.name}@{entry.suite.version}"
        yield Finding("suite", f"measured with {named}; the board ranks {board.suite.name}@{board.suite.version}")


def _values_in_range(entry: Entry, board: Board) -> Iterator[Finding]:
    for key, value in entry.columns.items():
        if key in board.keys and board.column(key).unit == "accuracy":
            ends = [number for number in (value.value, value.low, value.high) if number is not None]
            if any(not 0.0 <= number <= 1.0 for number in ends):
                yield Finding("range", f"column {key!r}: {value.value:g} is an accuracy outside [0, 1]")


def _complete(entry: Entry, board: Board) -> Iterator[Finding]:
    """Whether every cell of the board is there once per seed, and nothing else."""
    yield from _seeds(entry, board)
    keys = [record.cell_key for record in entry.records]
    used = [key for row in entry.rows for key in row.cells.values()]
    if len(set(keys)) != len(keys):
        yield Finding("records", "a record stands there twice")
    for key in sorted(set(keys) - set(used)):
        yield Finding("records", f"record {key[:12]} plays no role in any row")
    for row in entry.rows:
        for role, key in row.cells.items():
            if key not in keys:
                yield Finding("records", f"{row.seed_name}, {role}: record {key[:12]} is missing")
        for role, _ in role_columns(board):
            if role not in row.cells:
                yield Finding("records", f"{row.seed_name}: no record for {role}, which the board ranks")


def _seeds(entry: Entry, board: Board) -> Iterator[Finding]:
    wanted = board.examples
    for fold in dict.fromkeys(row.fold for row in entry.rows):
        if fold not in wanted:
            known = ", ".join(wanted) if board.folds else "no folds"
            yield Finding("folds", f"measured in fold {fold!r}; the board has {known}")
    common: set[int] | None = None
    for fold in wanted:
        seeds = [row.seed for row in entry.rows if row.fold == fold]
        where = f" in fold {fold!r}" if fold else ""
        if len(set(seeds)) != len(seeds):
            yield Finding("seeds", f"seeds {seeds}{where} contain one twice")
        if len(set(seeds)) < board.minimum.seeds:
            yield Finding("seeds", f"{len(set(seeds))} training seeds{where}; the board asks for {board.minimum.seeds}")
        if common is not None and set(seeds) != common:
            yield Finding("seeds", f"seeds {sorted(set(seeds))}{where}, others have {sorted(common)}; run all of them")
        common = set(seeds) if common is None else common
    weights = [row.train_key for row in entry.rows if row.train_key is not None]
    cells = [key for row in entry.rows for key in row.cells.values()]
    if len(set(weights)) != len(weights) or len(set(cells)) != len(cells):
        yield Finding("seeds", "two seeds are one and the same trained model")


def _record(role: str, row: RowSeed, record: ResultRecord, board: Board) -> Iterator[Finding]:
    """Whether one record answers the board's question for its role."""
    where, cell = f"{role}, record {record.cell_key[:12]}", record.cell
    if record.status != "ok" or record.evaluation is None or not isinstance(cell, EvalCell):
        yield Finding("records", f"{where}: is not the result of an evaluation")
        return
    if row.train_key is not None and cell.model != CellStart(cell=row.train_key):
        yield Finding("model", f"{where}: is about another model than the row's, {row.train_key[:12]}")
    wanted, protocol = board.examples.get(row.fold, {}).get(role), board.protocols.get(role)
    if protocol is not None and protocol_digest(cell) != protocol:
        yield Finding("protocol", f"{where}: the evaluator, its parameters or its seed are not the board's")
    if wanted is not None and cell.data.ids_digest != wanted:
        yield Finding("examples", f"{where}: ids digest {cell.data.ids_digest[:12]}, the board's is {wanted[:12]}")
    least = board.minimum.examples.get(role, 1)
    if cell.data.n < least:
        yield Finding("examples", f"{where}: {cell.data.n} examples; the board asks for {least}")
    if record.provenance.git_dirty:
        yield Finding("provenance", f"{where}: made by a checkout with uncommitted changes; commit and run again")
    column, _, place = role.partition("@")
    if column in ("r_id", "r_ood") and int(place) < len(board.threats):
        yield from _attacked(where, record, cell, board, int(place))
    elif column in ("a_id", "a_ood") and cell.threat is not None:
        yield Finding("threat", f"{where}: a clean accuracy has no threat model, this one has {cell.threat}")


def _attacked(where: str, record: ResultRecord, cell: EvalCell, board: Board, place: int) -> Iterator[Finding]:
    threat, asked = board.threats[place], cell.threat
    if asked != threat:
        yield Finding("threat", f"{where}: attacked under {asked}, the board ranks {threat}")
    evaluation = record.evaluation
    assert evaluation is not None
    least = board.minimum
    for attack in least.attacks:
        if attack not in evaluation.outcomes:
            yield Finding("budget", f"{where}: no outcome of attack {attack!r}, which the board asks for")
    if "robust" not in evaluation.outcomes or "clean" not in evaluation.outcomes:
        yield Finding("records", f"{where}: needs the outcomes clean and robust")
    for word, spent, floor in (
        ("forward", evaluation.budget.forward, least.forward_per_example),
        ("backward", evaluation.budget.backward, least.backward_per_example),
    ):
        if spent < floor * cell.data.n:
            yield Finding("budget", f"{where}: {spent / cell.data.n:.1f} {word} passes an example; at least {floor:g}")


def _columns(entry: Entry, board: Board, groups: Groups) -> Iterator[Finding]:
    try:
        counted = column_values(board, entry, groups)
    except CorruptRecordError as error:
        yield Finding("records", str(error))
        return
    for key in board.cells:
        stated, bits = entry.columns.get(key), counted.get(key)
        if stated is None:
            yield Finding("column", f"column {key!r} is missing")
        elif bits is not None and not _equal(stated, bits):
            yield Finding(
                "metric",
                f"column {key!r} is {stated.value:.6g} [{_end(stated.low)}, {_end(stated.high)}] (n={stated.n}); its "
                f"outcome bits say {bits.value:.6g} [{_end(bits.low)}, {_end(bits.high)}] (n={bits.n})",
            )
    for key in entry.columns:
        if key in board.keys and key not in board.cells:
            yield Finding("column", f"column {key!r} cannot be recomputed from outcomes; leave it out")


def _equal(first: Value, second: Value) -> bool:
    numbers = zip((first.value, first.low, first.high), (second.value, second.low, second.high), strict=True)
    near = all(a is not None and b is not None and abs(a - b) <= TOLERANCE for a, b in numbers)
    return near and first.n == second.n


def _end(number: float | None) -> str:
    return "-" if number is None else f"{number:.6g}"


def _flags(entry: Entry) -> Iterator[Finding]:
    raised = {flag.code for record in entry.records if record.evaluation for flag in record.evaluation.flags}
    for code in sorted(raised - set(entry.flags)):
        yield Finding("flags", f"flag {code!r} is raised by a record but not disclosed")
    for code in sorted(set(entry.flags) - raised):
        yield Finding("flags", f"flag {code!r} is disclosed but no record raises it")


def check_shelf(board: Board, shelf: Shelf) -> tuple[int, dict[str, list[str]]]:
    """Check every entry of a board.

    Returns:
        How many entries can be read, and for each refused entry or broken board its reasons.
    """
    contents = shelf.read()
    found: dict[str, list[str]] = {}
    if contents.problems:
        found[board.name] = list(contents.problems)
    for entry in contents.entries.values():
        others = {name: other for name, other in contents.entries.items() if name != entry.id}
        findings = [*check_entry(entry, board, shelf.groups), *against_others(entry, others)]
        if findings:
            found[f"{board.name}/{entry.id}"] = [str(finding) for finding in findings]
    return len(contents.entries), found
