"""What one process among several does of a cell: a share of an evaluation, or every row of its own in a training."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from pydantic import TypeAdapter

from robusteval.execution.determinism import torch_settings
from robusteval.execution.rank import RankOrder, decode_task
from robusteval.execution.sharding import measure_into_box
from robusteval.execution.work import train_cell
from robusteval.methods.parallel import joined
from robusteval.schema.cells import AnyCell, EvalCell, TrainCell
from robusteval.schema.records import TrainingResult
from robusteval.schema.types import Progress
from robusteval.store.store import Store

_CELL: TypeAdapter[TrainCell | EvalCell] = TypeAdapter(AnyCell)


def work(order: RankOrder, progress: Progress) -> TrainingResult | None:
    """Do it; an evaluation leaves what it found in the store.

    Args:
        order: what this process was told.
        progress: told the finished fraction and what runs now.
    """
    task, store = decode_task(order.task), Store.open(order.store_uri)
    cell = _CELL.validate_json(task.cell)
    with torch_settings(task.threads):
        if isinstance(cell, EvalCell):
            start = time.monotonic()
            measure_into_box(cell, task, store, progress, lambda: time.monotonic() - start)
            return None
        with joined(order.index, order.count, torch.device(task.device), Path(order.meeting)) as ranks:
            return train_cell(cell, store, task.device, progress, ranks)
