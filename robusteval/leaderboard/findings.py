"""Reasons to refuse an entry, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robusteval.leaderboard.text import cleaned
from robusteval.schema.errors import RobustevalError

REJECTED = 6
"""Exit code of a command that refuses an entry."""


class RejectedError(RobustevalError):
    """An entry is refused."""

    exit_code: ClassVar[int] = REJECTED


@dataclass(frozen=True)
class Finding:
    """One reason to refuse an entry."""

    code: str
    """Stable identifier: `format`, `board`, `suite`, `examples`, `threat`, `budget`, `metric`, `flags` ..."""
    text: str
    """What is wrong, with the value and what it should be, on one line."""

    def __str__(self) -> str:
        return f"{self.code}: {cleaned(self.text, 400)}"
