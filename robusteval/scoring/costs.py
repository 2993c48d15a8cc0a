"""What a row cost to train, from its training records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robusteval.schema.cells import CellStart, TrainCell
from robusteval.schema.errors import CorruptRecordError
from robusteval.schema.plans import RowSeed
from robusteval.schema.records import Budget, ResultRecord
from robusteval.schema.types import Frozen, NonNegativeFloat
from robusteval.scoring.outcomes import Records


class Costs(Frozen):
    """Mean over seeds; a field is absent unless every seed has it."""

    train_passes_per_example: NonNegativeFloat | None = None
    """Forward plus backward passes of this training alone, per training example."""
    start_passes_per_example: NonNegativeFloat | None = None
    """The same, summed over everything it started from."""
    selection_passes_per_example: NonNegativeFloat | None = None
    """Passes on validation data, per training example."""
    train_wall_s: NonNegativeFloat | None = None
    """Seconds of this training alone."""
    selected_on: tuple[str, ...] = ()
    """What selected the weights, each word once over the seeds."""


def read_costs(rows: Sequence[RowSeed], records: Records) -> Costs:
    """Costs of the seeds of one row."""
    found = [_trained(records, row.train_key) for row in rows]
    return Costs(
        train_passes_per_example=_mean([_train_passes(record) for record in found]),
        start_passes_per_example=_mean(
            [_start_passes(record, row.start_train_key, records) for record, row in zip(found, rows, strict=True)]
        ),
        selection_passes_per_example=_mean([_selection_passes(record) for record in found]),
        train_wall_s=_mean([None if record is None else record.timing.wall_s for record in found]),
        selected_on=tuple(sorted({record.training.selected_on for record in found if record and record.training})),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _trained(records: Records, key: str | None) -> ResultRecord | None:
    record = records.get(key or "")
    if record is None or record.status != "ok":
        return None
    if not isinstance(record.cell, TrainCell) or record.training is None:
        raise CorruptRecordError(f"record {record.cell_key[:12]} should be a training result but is an evaluation")
    return record


def _per_example(record: ResultRecord, budget: Budget) -> float | None:
    assert record.training is not None
    examples = record.training.n_examples
    return (budget.forward + budget.backward) / examples if examples else None


def _train_passes(record: ResultRecord | None) -> float | None:
    return None if record is None or record.training is None else _per_example(record, record.training.budget)


def _selection_passes(record: ResultRecord | None) -> float | None:
    return None if record is None or record.training is None else _per_example(record, record.training.selection_budget)


def _start_passes(record: ResultRecord | None, start_key: str | None, records: Records) -> float | None:
    """Passes of the chain of start models; None if a link is a given file or has no record."""
    total = 0.0
    seen: set[str] = set()
    while record is not None and isinstance(record.cell, TrainCell):
        start = record.cell.start
        if start is None:
            return total
        if not isinstance(start, CellStart):
            return None
        if not seen and start_key is not None and start.cell != start_key:
            raise CorruptRecordError(
                f"record {record.cell_key[:12]} started from {start.cell[:12]}, the plan says {start_key[:12]}"
            )
        if start.cell in seen:
            raise CorruptRecordError(f"record {record.cell_key[:12]} starts from itself through {start.cell[:12]}")
        seen.add(start.cell)
        record = _trained(records, start.cell)
        passes = _train_passes(record)
        if passes is None:
            return None
        total += passes
    return None
