"""The cells of a suite with what the suite calls them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from robusteval.schema.cells import EvalCell, TrainCell
from robusteval.schema.plans import StoredPlan
from robusteval.schema.specs import SuiteSpec


@dataclass(frozen=True)
class ExpandedCell:
    """A cell and what the suite calls it.

    Attributes:
        cell: the unit of work.
        key: its key.
        title: such as `rift seed 0: train`.
        label: row of the table.
        method: method of the row.
        seed: training seed of the row.
        role: `train`, `selection` for a training that only selects, or the role in the table (`a_id`, `r_ood@0`).
        needs: keys of the cells whose model it starts from or measures.
        passes: estimated forward plus backward passes of single examples.
        kind: cells of one kind take about the same time.
        fold: domain that is apart, in a suite with folds.
    """

    cell: TrainCell | EvalCell
    key: str
    title: str
    label: str
    method: str
    seed: int
    role: str
    needs: tuple[str, ...]
    passes: int
    kind: str
    fold: str = ""

    @property
    def evaluator(self) -> str:
        """Name of the evaluator; `train` for a train cell."""
        return self.cell.evaluator.name if isinstance(self.cell, EvalCell) else "train"


@dataclass(frozen=True)
class Expansion:
    """All cells of a suite.

    Attributes:
        spec: the suite.
        cells: train cells in an order in which each comes after its start, then eval cells; no key twice.
        stored: which cell plays which role, as the store keeps it.
        weights: start checkpoints that must be in the store before the run, by SHA-256.
    """

    spec: SuiteSpec
    cells: tuple[ExpandedCell, ...]
    stored: StoredPlan
    weights: Mapping[str, Path] = field(default_factory=dict)

    @property
    def levels(self) -> tuple[tuple[ExpandedCell, ...], ...]:
        """Train cells by how many other train cells come before them: those of one level are independent."""
        depth: dict[str, int] = {}
        levels: list[list[ExpandedCell]] = []
        for item in self.cells:
            if isinstance(item.cell, TrainCell):
                depth[item.key] = 1 + max((depth[need] for need in item.needs), default=-1)
                levels += [[] for _ in range(depth[item.key] + 1 - len(levels))]
                levels[depth[item.key]].append(item)
        return tuple(tuple(level) for level in levels)
