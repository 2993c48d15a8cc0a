"""Every error a user can cause, each with the exit code it maps to.

The message of a `RobustevalError` is the whole line a user reads: it names the place, the value, what is valid
and what to do. The command line prints it without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar


class RobustevalError(Exception):
    """Base of all expected errors."""

    exit_code: ClassVar[int] = 1


class UsageError(RobustevalError):
    """The user asked for something that does not exist or makes no sense."""

    exit_code = 2


class SpecError(UsageError):
    """A file that a user wrote is wrong; the message starts with `file:line:`."""


class UnknownNameError(UsageError):
    """A name is not registered."""


class DataError(UsageError):
    """Data on disk is missing, broken or does not fit the suite."""


class CheckpointError(UsageError):
    """A weights file is missing, truncated, of a refused format, or does not fit the architecture."""


class StoreError(RobustevalError):
    """The store holds something it should not, or cannot be written."""

    exit_code = 3


class CorruptRecordError(StoreError):
    """A stored file does not say what its name or its digest promises."""


class NewerFormatError(StoreError):
    """A stored file was written by a newer version of this package; it is left alone."""


class UnreachableError(RobustevalError):
    """The place of a store cannot be used: no connection, no permission, no such bucket.

    Not a `StoreError`: nothing is wrong with what is stored, and the next attempt may succeed.
    """


class BusyError(RobustevalError):
    """Another run is at this cell, on this machine or on another one."""

    exit_code = 3


class CellError(RobustevalError):
    """A cell cannot be executed: the model, the attack or the data broke the contract."""

    exit_code = 3


class ExampleError(CellError):
    """Some examples of a batch broke the contract, or were made to break it.

    Args:
        text: the message, with `{}` where the examples are named.
        positions: positions of all these examples in the batch.
        keys: their keys, by which a caller that knows the ids names them.
    """

    SHOWN: ClassVar[int] = 5

    def __init__(self, text: str, positions: Sequence[int], keys: Sequence[int]) -> None:
        self.text, self.positions, self.keys = text, tuple(positions), tuple(keys)
        super().__init__(self._naming([str(position) for position in self.positions], "of the batch"))

    def _naming(self, names: Sequence[str], after: str = "") -> str:
        more = len(names) - self.SHOWN
        words = [f"example {', '.join(names[: self.SHOWN])}", *([f"and {more} more"] if more > 0 else []), after]
        return self.text.replace("{}", " ".join(word for word in words if word))

    def placed(self, keys: Sequence[int]) -> ExampleError:
        """The same error about the batch with these keys."""
        place = {key: position for position, key in enumerate(keys)}
        return ExampleError(self.text, [place[key] for key in self.keys], self.keys)

    def named(self, ids: Mapping[int, str]) -> CellError:
        """The same error with the ids of the examples, found by their keys."""
        return CellError(self._naming([ids[key] for key in self.keys]))


def unknown_name(kind: str, name: str, known: Iterable[str], *, listing: str | None = None) -> str:
    """Write the message for a name that is not known, with the nearest valid ones.

    Args:
        kind: what the name should have been, in words (`method`, `attack`).
        name: what was written.
        known: all valid names.
        listing: the command that lists the valid names, if there is one.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        hint = "did you mean " + " or ".join(repr(other) for other in near) + "?"
    else:
        hint = "valid: " + (", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "none")
    return f"unknown {kind} {name!r}; {hint}" + (f" ({listing})" if listing else "")
