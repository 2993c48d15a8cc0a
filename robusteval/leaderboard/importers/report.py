"""What an import found, and writing it to boards on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from robusteval.leaderboard.boards import Board, board_yaml, load_board
from robusteval.leaderboard.entries import Entry, Value
from robusteval.leaderboard.shelf import Shelf
from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import DataError, RobustevalError
from robusteval.store.atomic import create_atomically

MAX_BYTES = 64_000_000
"""Largest source file that is read."""
EMPTY = ("", "null", "none", "nan", "-", "n/a")
"""Texts that say that there is no number."""


class UnreadableNumberError(ValueError):
    """A text is neither a number nor empty."""


@dataclass
class Imported:
    """What was read from somebody's files.

    Attributes:
        boards: boards by name.
        entries: entries by board.
        problems: one line for each file or field that could not be read.
        counts: how many of what was read, for the summary.
    """

    boards: dict[str, Board] = field(default_factory=dict)
    entries: dict[str, list[Entry]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, board: Board, entry: Entry) -> None:
        """Take an entry; a second one of the same id on the same board is a problem."""
        self.boards.setdefault(board.name, board)
        there = self.entries.setdefault(board.name, [])
        if any(other.id.lower() == entry.id.lower() for other in there):
            place = "" if entry.origin is None else entry.origin.file
            self.problems.append(f"{place}: its id {entry.id!r} is taken by another file; rename one of them")
        else:
            there.append(entry)

    def count(self, what: str, number: int = 1) -> None:
        """Add to a count."""
        self.counts[what] = self.counts.get(what, 0) + number


@dataclass(frozen=True)
class Written:
    """What writing an import did, as entry counts and problems."""

    added: int = 0
    unchanged: int = 0
    superseding: int = 0
    problems: tuple[str, ...] = ()


def write_import(found: Imported, folder: Path) -> Written:
    """Write boards and entries below `folder`; what is there is never changed.

    A new board gets its `board.yaml`. An entry whose id is taken by other content is written under a new id and
    supersedes the old one, so importing again after an update of the source corrects and keeps the history.

    Args:
        found: what an importer read.
        folder: folder of boards.
    """
    done = Written()
    for name, board in sorted(found.boards.items()):
        shelf = Shelf(folder / name)
        try:
            create_atomically(
                shelf.folder / "board.yaml", board_yaml(board, "Made by `robusteval board import`.").encode()
            )
            there = load_board(shelf.folder)
            missing = [key for key in board.keys if key not in there.keys]
            if missing:
                raise DataError(f"{shelf.folder / 'board.yaml'}: has no column {missing[0]!r}, which the import fills")
        except RobustevalError as error:
            done = replace(done, problems=(*done.problems, str(error)))
            continue
        for entry in found.entries[name]:
            done = _write(shelf, entry, done)
    return done


def _write(shelf: Shelf, entry: Entry, done: Written) -> Written:
    try:
        if not shelf.path(entry.id).is_file():
            shelf.add(entry)
            return replace(done, added=done.added + 1)
        contents = shelf.read()
        newest = entry.id
        while (after := contents.replaced_by(newest)) is not None:
            newest = after
        if _same(contents.entries.get(newest), entry):
            return replace(done, unchanged=done.unchanged + 1)
        fresh = f"{entry.id[:70]}@{entry.digest[:8]}"
        shelf.add(entry.model_copy(update={"id": fresh, "supersedes": newest}))
        return replace(done, superseding=done.superseding + 1)
    except RobustevalError as error:
        return replace(done, problems=(*done.problems, str(error)))


def _same(old: Entry | None, new: Entry) -> bool:
    return old is not None and old.model_copy(update={"id": new.id, "supersedes": new.supersedes}) == new


def read_bytes(path: Path) -> bytes:
    """Content of a source file.

    Raises:
        ValueError: it is too large.
        OSError: it cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read")
    return path.read_bytes()


def percent(text: Any) -> Value | None:
    """A percent number, as `93.68` or `93.68%`, as a fraction; None for a text that says there is none.

    Raises:
        UnreadableNumberError: it is neither, or not in [0, 100].
    """
    number = plain_number(text)
    if number is None:
        return None
    if not 0 <= number <= 100:
        raise UnreadableNumberError(f"{text!r} is not a percentage in [0, 100]")
    return Value(value=float(number / 100), written=str(text).strip())


def fraction(text: Any) -> Value | None:
    """A number in [0, 1]; None for a text that says there is none.

    Raises:
        UnreadableNumberError: it is neither.
    """
    number = plain_number(text)
    if number is None:
        return None
    if not 0 <= number <= 1:
        raise UnreadableNumberError(f"{text!r} is not a fraction in [0, 1]")
    return Value(value=float(number), written=str(text).strip())


def plain_number(text: Any) -> Decimal | None:
    """A finite decimal number; None for a text that says there is none.

    Raises:
        UnreadableNumberError: it is neither.
    """
    if text is None:
        return None
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise UnreadableNumberError(f"{str(text)[:40]!r} is not a number")
    plain = str(text).strip().removesuffix("%").strip()
    if plain.lower() in EMPTY:
        return None
    try:
        number = Decimal(plain) if len(plain) <= 40 else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or abs(number.adjusted()) > 30:
        raise UnreadableNumberError(f"{plain[:40]!r} is not a number")
    return number


def relative_name(path: Path, root: Path) -> str:
    """How an origin names a file: relative to what was imported."""
    return path.relative_to(root).as_posix() if path != root and path.is_relative_to(root) else path.name


def digest_of(blob: bytes) -> str:
    """SHA-256 of a source file."""
    return sha256_hex(blob)


def columns_of(named: Sequence[tuple[str, Value | None]]) -> dict[str, Value]:
    """Those columns that have a number."""
    return {key: value for key, value in named if value is not None}
