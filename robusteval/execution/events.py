"""What a run tells while it runs, and what it says at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from robusteval.schema.shards import Shard

CellStatus = Literal["ok", "failed", "cached", "busy"]


@dataclass(frozen=True)
class CellTask:
    """One cell to execute, in a form that crosses process and machine borders.

    Attributes:
        key: cell key; of a share of a cell, a key of its own.
        cell: the cell as JSON.
        device: `cpu`, `cuda`, `cuda:1`.
        threads: CPU threads.
        again: execute even if a result is stored.
        shard: measure this share of the examples only, for another task to put together.
        merges: put so many shares together instead of measuring anything; 0 for a cell in one piece.
        ranks: processes on this machine that share the cell, each with a device of its own.
    """

    key: str
    cell: str
    device: str = "cpu"
    threads: int = 1
    again: bool = False
    shard: Shard | None = None
    merges: int = 0
    ranks: int = 1


@dataclass(frozen=True)
class CellSummary:
    """What became of one cell; the result itself is in the store.

    Attributes:
        key: cell key.
        status: `ok`, `failed`, `cached` (another run had stored it) or `busy` (another run is at it).
        wall_s: seconds.
        headline: the main number or the error, in a few words.
        note: something a person should hear of, such as a nondeterministic result.
    """

    key: str
    status: CellStatus
    wall_s: float
    headline: str = ""
    note: str = ""


@dataclass(frozen=True)
class RunSummary:
    """What became of a whole run.

    Attributes:
        done: cells executed now.
        cached: cells that had a result already.
        failed: titles of cells that failed, with the error.
        blocked: titles of cells that a failure kept from running.
        notes: things a person should hear of.
        wall_s: seconds.
        cancelled: whether the run was interrupted.
    """

    done: int
    cached: int
    failed: dict[str, str] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wall_s: float = 0.0
    cancelled: bool = False


class Listener(Protocol):
    """Whoever shows a run to a person."""

    def started(self, key: str, title: str) -> None:
        """A cell begins."""

    def progressed(self, key: str, fraction: float, what: str) -> None:
        """A cell is `fraction` done."""

    def finished(self, summary: CellSummary, title: str) -> None:
        """A cell has ended."""

    def tick(self, done: int, total: int, eta_s: float | None) -> None:
        """The overall state; `eta_s` is None while nothing can be said."""


class SilentListener:
    """Shows nothing."""

    def started(self, key: str, title: str) -> None:
        """Ignore."""

    def progressed(self, key: str, fraction: float, what: str) -> None:
        """Ignore."""

    def finished(self, summary: CellSummary, title: str) -> None:
        """Ignore."""

    def tick(self, done: int, total: int, eta_s: float | None) -> None:
        """Ignore."""
