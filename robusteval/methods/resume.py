"""What an interrupted training run leaves behind: one safetensors blob a finished epoch, no pickle.

Tensors: the model, the optimiser, the method, and the best weights so far. Everything else is JSON in the metadata.
Random generators are not saved, because the trainer seeds them anew at every epoch.
"""

from __future__ import annotations

import json

import safetensors
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor

from robusteval.schema.errors import CorruptRecordError
from robusteval.schema.records import Budget
from robusteval.schema.types import Frozen, JsonValue, NonNegativeInt

BLOB = "training"
"""Name of the blob in the cell's scratch space."""


class Best(Frozen):
    """The best epoch so far."""

    epoch: NonNegativeInt
    """Counted from 1."""
    score: float
    """Validation accuracy, robust where the method trains for it."""


class Finished(Frozen):
    """Where a run stands after an epoch."""

    epochs: NonNegativeInt
    """Epochs finished."""
    iteration: NonNegativeInt
    """Optimiser steps done."""
    history: tuple[dict[str, float], ...]
    """One object an epoch."""
    best: Best | None = None
    """By validation, whether or not it selects."""
    spent: Budget
    """All passes, selection included."""
    selection: Budget
    """Passes of selection."""
    diagnostics: dict[str, JsonValue] = {}
    """What the method reported so far."""
    selected_on: str | None = None
    """What the method said about its own selection."""


def encode(finished: Finished, groups: dict[str, dict[str, Tensor]]) -> bytes:
    """One blob of the named groups of tensors."""
    tensors = {
        f"{group}/{name}": value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for group, entries in groups.items()
        for name, value in entries.items()
    }
    return safetensors.torch.save(tensors, metadata={"finished": finished.model_dump_json()})


def decode(blob: bytes, place: str) -> tuple[Finished, dict[str, dict[str, Tensor]]]:
    """Inverse of `encode`; groups without tensors are absent.

    Raises:
        CorruptRecordError: the blob is not one that `encode` wrote; `place` names it.
    """
    try:
        length = int.from_bytes(blob[:8], "little")
        header = json.loads(blob[8 : 8 + length])
        finished = Finished.model_validate_json(header["__metadata__"]["finished"])
        tensors = safetensors.torch.load(blob)
    except (ValueError, KeyError, TypeError, ValidationError, safetensors.SafetensorError) as error:
        raise CorruptRecordError(
            f"{place}: not a saved training state ({type(error).__name__}); delete this file to start the cell again"
        ) from None
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        group, _, rest = name.partition("/")
        groups.setdefault(group, {})[rest] = value
    return finished, groups
