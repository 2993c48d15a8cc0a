"""A file that people write: its values, the line of each, and what is wrong with it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import SpecError


@dataclass(frozen=True)
class FileKind:
    """What the files of one kind are called in messages.

    Attributes:
        noun: one of them (`suite`).
        needs: what every one of them holds at least.
        listing: a clause on how to find the ones that exist.
        command: the command that names every problem of a file.
    """

    noun: str
    needs: str
    listing: str
    command: str


SUITE_FILE = FileKind(
    noun="suite",
    needs="name, version and methods",
    listing="`robusteval ls suites` lists the packaged suites",
    command="robusteval validate",
)

Loc = tuple[str | int, ...]
"""Where a value sits: keys and list positions from the root, as in pydantic's errors."""


@dataclass(frozen=True)
class Source:
    """One parsed file.

    Attributes:
        path: the file.
        shown: how messages name it.
        text: its content.
        value: its content as plain values.
        lines: line of each value, counted from 1; for an entry of a map the line of its key.
    """

    path: Path
    shown: str
    text: str
    value: Any
    lines: dict[Loc, int] = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return sha256_hex(self.text.encode())

    def line(self, loc: Loc) -> int:
        """The line of the value at `loc`, or of the nearest thing around it that was written."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, 1)

    def at(self, loc: Loc) -> Any:
        """The plain value at `loc`, or None."""
        value = self.value
        for step in loc:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return value


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong with a file."""

    line: int
    """Line, counted from 1."""
    text: str
    """What is wrong and what is valid, on one line."""

    def located(self, shown: str) -> str:
        """The line a user reads."""
        return f"{shown}:{self.line}: {one_line(self.text)}"


class SourceError(SpecError):
    """A file with at least one problem; the message is the first one.

    Args:
        shown: how messages name the file.
        problems: everything that is wrong, in any order, at least one.
        command: the command that names every problem of the file.
    """

    def __init__(self, shown: str, problems: list[Problem], command: str = SUITE_FILE.command) -> None:
        self.shown = shown
        self.problems = tuple(sorted(set(problems)))
        rest = len(self.problems) - 1
        more = f" (and {rest} more: {command} {shown})" if rest else ""
        super().__init__(self.problems[0].located(shown) + more)

    def located(self) -> list[str]:
        """One line a problem, in the order of the file."""
        return [problem.located(self.shown) for problem in self.problems]


def one_line(text: str) -> str:
    """Put `text` on one line without control characters."""
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]+", " ", text).strip()


def shorten(value: Any, limit: int = 60) -> str:
    """A value as a short quote for a message."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
