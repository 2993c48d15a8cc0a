"""On which examples a model failed, in words for the note of its exception."""

from __future__ import annotations

import torch

from robusteval.data.batches import DeviceSet
from robusteval.data.slices import load_slice
from robusteval.models.classifier import Classifier
from robusteval.schema.cells import EvalCell


def examples_given(model: Classifier, cell: EvalCell) -> str:
    """Which examples a model was given when it failed: those of the first clean batch that fails again, else all.

    Args:
        model: the model, on its device.
        cell: what was being measured.
    """
    examples = load_slice(cell.data)
    where = f"{cell.evaluator.name} on {', '.join(cell.data.domains)}"
    try:
        with model.frozen(), torch.no_grad():
            for start in range(0, len(examples), 16):
                part = examples.take(range(start, min(start + 16, len(examples))))
                _predict(model, part.ids, DeviceSet(part, model.device))
    except _BatchError as found:
        return f"robusteval: while measuring {where}, on the examples {', '.join(found.ids)}"
    ids = examples.ids
    return f"robusteval: while measuring {where}, on images made from the examples {ids[0]} to {ids[-1]}"


class _BatchError(Exception):
    def __init__(self, ids: tuple[str, ...]) -> None:
        super().__init__()
        self.ids = ids


def _predict(model: Classifier, ids: tuple[str, ...], examples: DeviceSet) -> None:
    try:
        for batch in examples.in_order(16):
            model(batch.images)
    except Exception as error:
        raise _BatchError(ids) from error
