"""How far the suites of a store are, from the names of its blobs and its leases; no record is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from robusteval.schema.plans import StoredPlan
from robusteval.store.leases import SeenLease
from robusteval.store.store import Store


@dataclass(frozen=True)
class SuiteProgress:
    """Cells of one suite by state; each cell is counted once.

    Attributes:
        suite: name of the suite.
        version: its version.
        cells: how many there are.
        done: have a result.
        failed: their last attempt failed.
        running: somebody executes them.
        stale: somebody died with them.
    """

    suite: str
    version: int
    cells: int
    done: int
    failed: int
    running: int
    stale: int

    @property
    def waiting(self) -> int:
        """Have not been started, or not since they were interrupted."""
        return self.cells - self.done - self.failed - self.running - self.stale

    @property
    def numbers(self) -> dict[str, int]:
        """The counts by name."""
        return {
            "cells": self.cells,
            "done": self.done,
            "running": self.running,
            "stale": self.stale,
            "failed": self.failed,
            "waiting": self.waiting,
        }

    @property
    def words(self) -> str:
        """What is not done, in words, or that all is."""
        open_ = [f"{self.numbers[name]} {name}" for name in ("running", "stale", "failed") if self.numbers[name]]
        done = "done" if self.done == self.cells else f"{self.done} of {self.cells} done"
        return ", ".join([done, *open_])


@dataclass(frozen=True)
class CellUnderWay:
    """A cell with a lease.

    Attributes:
        title: what it is in a suite's table, such as `digits: rift seed 0: train`; the beginning of its key if no
            suite has it.
        seen: the lease.
    """

    title: str
    seen: SeenLease

    @property
    def state(self) -> Literal["running", "stale"]:
        """Whether its owner lives."""
        return self.seen.state


@dataclass(frozen=True)
class StoreProgress:
    """What happens in a store now.

    Attributes:
        uri: the store.
        cells: cells that somebody executes or died with.
        suites: how far each suite is.
        damaged: a line for each plan that cannot be read.
    """

    uri: str
    cells: tuple[CellUnderWay, ...]
    suites: tuple[SuiteProgress, ...]
    damaged: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether nothing runs and every cell has a result or has failed."""
        return not self.cells and all(not suite.waiting for suite in self.suites)


def read_progress(store: Store) -> StoreProgress:
    """Look at a store once.

    Raises:
        UnreachableError: it cannot be reached.
    """
    leases = store.leases.seen().values()
    damaged: list[str] = []
    plans = store.plans(damaged)
    titles: dict[str, str] = {}
    for plan in plans:
        for key, title in titles_of(plan).items():
            titles.setdefault(key, f"{plan.suite}: {title}")
    under_way = [CellUnderWay(_title(seen, titles), seen) for seen in leases]
    return StoreProgress(
        uri=store.uri,
        cells=tuple(sorted(under_way, key=lambda cell: (cell.state, cell.title))),
        suites=_counted(store, plans, leases),
        damaged=tuple(damaged),
    )


def survey(store: Store) -> Callable[[str], tuple[str, str]]:
    """`Store.state` for many cells, with who is at them; the leases are read once, now.

    Of a store that is far away the names are read once as well, so that a cell that was never run costs no request.

    Returns:
        A function from a key to its state and the reason: those of `Store.state`, or `running` or `stale` for a cell
        without a result that somebody executes, or died with.
    """
    leases = _by_cell(store.leases.seen().values())
    folders = ("records", "failures") if store.cache is not None else ()
    names = [_keys(store.backend.paths(folder)) for folder in folders]

    def state(key: str) -> tuple[str, str]:
        absent = bool(names) and not any(key in known for known in names) and store.damaged_scratch(key) is None
        found, reason = ("missing", "not run yet") if absent else store.state(key)
        if key in leases and found in ("missing", "failed"):
            return leases[key].state, leases[key].reason
        return found, reason

    return state


def count_cells(store: Store, plans: Sequence[StoredPlan]) -> tuple[SuiteProgress, ...]:
    """How far some suites of a store are."""
    return _counted(store, plans, store.leases.seen().values()) if plans else ()


def titles_of(plan: StoredPlan) -> dict[str, str]:
    """What each cell of a suite is called, by key; a cell that serves several rows has the name of the first."""
    titles: dict[str, str] = {}
    for row in plan.rows:
        for key, role in ((row.train_key, "train"), *((key, role) for role, key in row.cells.items())):
            if key is not None:
                titles.setdefault(key, f"{row.label} {row.seed_name}: {role}")
        if row.start_train_key is not None:
            titles.setdefault(row.start_train_key, f"start of {row.label} {row.seed_name}: train")
    return titles


def _title(seen: SeenLease, titles: Mapping[str, str]) -> str:
    share = "" if seen.cell == seen.key else " (a share)"
    return titles.get(seen.cell, f"cell {seen.cell[:12]}") + share


def _by_cell(leases: Iterable[SeenLease]) -> dict[str, SeenLease]:
    """A lease of each cell; of several shares one whose owner lives, if there is one."""
    return {seen.cell: seen for seen in sorted(leases, key=lambda seen: seen.state == "running")}


def _counted(store: Store, plans: Sequence[StoredPlan], leases: Iterable[SeenLease]) -> tuple[SuiteProgress, ...]:
    done, failed = (_keys(store.backend.paths(folder)) for folder in ("records", "failures"))
    by_cell = _by_cell(leases)
    return tuple(_count(plan, done, failed, by_cell) for plan in plans)


def _count(plan: StoredPlan, done: set[str], failed: set[str], leases: dict[str, SeenLease]) -> SuiteProgress:
    keys = titles_of(plan).keys()
    finished = keys & done
    states = {key: leases[key].state for key in keys & leases.keys() - finished}
    return SuiteProgress(
        suite=plan.suite,
        version=plan.version,
        cells=len(keys),
        done=len(finished),
        failed=len(keys & failed - finished - states.keys()),
        running=sum(state == "running" for state in states.values()),
        stale=sum(state == "stale" for state in states.values()),
    )


def _keys(paths: Iterable[str]) -> set[str]:
    return {PurePosixPath(path).stem for path in paths if path.endswith(".json")}
