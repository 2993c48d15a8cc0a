"""What a run would do: each cell of a suite with its state in the store, the reason for it, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robusteval.planning.expanded import ExpandedCell, Expansion
from robusteval.planning.only import Filter
from robusteval.schema.cells import EvalCell, TrainCell
from robusteval.schema.plans import StoredPlan
from robusteval.schema.types import JsonValue, Resources

State = Literal["done", "pending", "running", "stale", "failed", "corrupt", "blocked"]
Lookup = Callable[[str], tuple[str, str]]
"""Gives the state of a key (`done`, `missing`, `running`, `stale`, `failed`, `corrupt`) and the reason for it."""


@dataclass(frozen=True)
class PlannedCell:
    """A cell with its state.

    Attributes:
        key: cell key.
        title: such as `rift seed 0: train`.
        cell: the unit of work.
        state: `done` it has a result; `pending` it can run, at the latest when its start is there; `running` somebody
            executes it; `stale` somebody died with it, and the next run takes it over; `failed` its last attempt
            failed; `corrupt` its result is damaged; `blocked` a failed or damaged cell stands before it.
        reason: why it is in that state.
        needs: keys of cells that must be done first.
        passes: estimated forward plus backward passes of single examples.
        kind: cells of one kind take about the same time.
        role: `train`, `selection` for a training that only selects, or the role in the table (`a_id`, `r_ood@0`).
    """

    key: str
    title: str
    cell: TrainCell | EvalCell
    state: State
    reason: str
    needs: tuple[str, ...]
    passes: int
    kind: str
    role: str

    def summary(self) -> dict[str, JsonValue]:
        """The cell as an entry of a listing."""
        return {
            "key": self.key,
            "title": self.title,
            "role": self.role,
            "state": self.state,
            "reason": self.reason,
            "needs": list(self.needs),
            "passes": self.passes,
        }


@dataclass(frozen=True)
class Plan:
    """All cells that were asked for, each after those it needs.

    Attributes:
        suite: name of the suite.
        version: version of the suite.
        cells: the cells.
        resources: what one cell may use.
        stored: which cell plays which role in the suite's table.
        weights: start checkpoints that must be in the store before the run, by SHA-256.
    """

    suite: str
    version: int
    cells: tuple[PlannedCell, ...]
    resources: Resources
    stored: StoredPlan
    weights: Mapping[str, Path]

    @property
    def totals(self) -> dict[str, int]:
        """Numbers of cells by state; damaged cells count as failed."""
        states = [cell.state for cell in self.cells]
        return {
            "cells": len(states),
            "done": states.count("done"),
            "pending": states.count("pending"),
            "running": states.count("running"),
            "stale": states.count("stale"),
            "failed": states.count("failed") + states.count("corrupt"),
            "blocked": states.count("blocked"),
        }

    @property
    def selecting(self) -> int:
        """Number of trainings that only select the weights of others."""
        return sum(cell.role == "selection" for cell in self.cells)

    @property
    def passes_left(self) -> int:
        """Estimated passes of everything that is not done."""
        return sum(cell.passes for cell in self.cells if cell.state != "done")


def make_plan(expansion: Expansion, lookup: Lookup, only: Filter | None = None) -> Plan:
    """Ask the store about each cell.

    Args:
        expansion: the cells of a suite.
        lookup: state of a key, `Store.state` or `store.progress.survey`.
        only: keeps matching cells and the train cells they need; everything by default.
    """
    planned: dict[str, PlannedCell] = {}
    for item in _selected(expansion.cells, only):
        state, reason = _state(item, lookup, planned)
        planned[item.key] = PlannedCell(
            key=item.key,
            title=item.title,
            cell=item.cell,
            state=state,
            reason=reason,
            needs=item.needs,
            passes=item.passes,
            kind=item.kind,
            role=item.role,
        )
    return Plan(
        suite=expansion.spec.name,
        version=expansion.spec.version,
        cells=tuple(planned.values()),
        resources=expansion.spec.resources,
        stored=expansion.stored,
        weights=dict(expansion.weights),
    )


_TOLD: Mapping[str, State] = {
    "done": "done",
    "running": "running",
    "stale": "stale",
    "failed": "failed",
    "corrupt": "corrupt",
}
"""What a store says of a cell that decides its state, whatever it needs."""


def _state(item: ExpandedCell, lookup: Lookup, planned: Mapping[str, PlannedCell]) -> tuple[State, str]:
    found, reason = lookup(item.key)
    if (told := _TOLD.get(found)) is not None:
        return told, reason
    for need in item.needs:
        before = planned[need]
        if before.state in ("failed", "corrupt", "blocked"):
            return "blocked", f"needs {before.title!r}, which is {before.state}"
    waits = [planned[need].title for need in item.needs if planned[need].state != "done"]
    return "pending", f"waits for {waits[0]!r}" if waits else reason


def _selected(cells: Iterable[ExpandedCell], only: Filter | None) -> list[ExpandedCell]:
    """Matching cells and everything they need, in the given order."""
    listed = list(cells)
    if only is None:
        return listed
    by_key = {item.key: item for item in listed}
    wanted: set[str] = set()
    stack = [item.key for item in listed if only.matches(item)]
    while stack:
        key = stack.pop()
        if key not in wanted:
            wanted.add(key)
            stack += by_key[key].needs
    return [item for item in listed if item.key in wanted]
