"""Results as a user holds them: a table, frames, plots, records, and one side of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robusteval.schema.plans import StoredPlan
from robusteval.schema.records import ResultRecord
from robusteval.scoring.baseline_cell import BaselineCell, make_cells
from robusteval.scoring.results import SuiteTable
from robusteval.scoring.sides import Side, side_of_plan
from robusteval.scoring.table import score
from robusteval.store.store import Store

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SuiteResults:
    """What is stored of a suite, or of one model on it.

    Attributes:
        plan: which cell plays which role in which row.
        records: finished and failed records by cell key.
        store: where they are.
    """

    plan: StoredPlan
    records: Mapping[str, ResultRecord]
    store: Store

    @cached_property
    def scores(self) -> SuiteTable:
        """Every number with its interval."""
        return score(self.plan, self.records, self.store.groups)

    def table(self) -> str:
        """The 2 x 2 table as Markdown, with the sentences that define its numbers."""
        from robusteval.scoring.render import to_markdown

        return to_markdown(self.scores)

    def __str__(self) -> str:
        return self.table()

    def _repr_markdown_(self) -> str:
        return self.table()

    def to_pandas(self) -> pd.DataFrame:
        """One row a method, indexed by its name; accuracies are fractions, absent ones missing."""
        from robusteval.scoring.frames import to_frame

        return to_frame(self.scores)

    def plot(self, path: str | Path, x: str | None = None, y: str | None = None) -> Path:
        """Write a scatter plot with intervals.

        Args:
            path: file to write, ending in `.png` or `.svg`.
            x: column of the horizontal axis, such as `a_id`; with `y` one panel is drawn, without both, two.
            y: column of the vertical axis.

        Raises:
            UsageError: an unknown column or ending, or nothing to draw.
        """
        from robusteval.scoring.plot import scatter

        return scatter(self.scores, Path(path), x=x, y=y)

    def side(self, row: str | None = None) -> Side:
        """The results as one side of a comparison.

        Raises:
            UsageError: there is no such row, or it has no result.
        """
        name = f"{self.plan.suite}:{row}" if row else self.name
        return side_of_plan(name, self.plan, self.records, self.store.groups, row)

    @property
    def name(self) -> str:
        """What messages call these results."""
        return self.plan.suite


@dataclass(frozen=True)
class ModelResults(SuiteResults):
    """What was found about one model.

    Attributes:
        family: class of the network.
    """

    family: str = ""

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.plan.rows[0].label

    def baseline_cells(self, name: str) -> tuple[BaselineCell, ...]:
        """The results as the files of a baseline called `name`."""
        found = self.side().rows[self.name]
        suite = f"{self.plan.suite}@{self.plan.version}"
        return make_cells(name, suite, self.family, found, self.store.groups)


def read_results(plan: StoredPlan, store: Store) -> SuiteResults:
    """What a store holds of a plan.

    Raises:
        StoreError: a record cannot be read.
    """
    return SuiteResults(plan, _records(plan, store), store)


def _records(plan: StoredPlan, store: Store) -> dict[str, ResultRecord]:
    found: dict[str, ResultRecord] = {}
    for key in _keys(plan):
        record = store.latest(key)
        if record is not None:
            found[key] = record
    return found


def _keys(plan: StoredPlan) -> Iterable[str]:
    keys: dict[str, Any] = {}
    for row in plan.rows:
        for key in (row.train_key, row.start_train_key, *row.cells.values()):
            if key is not None:
                keys[key] = None
    return keys
