"""Optimisers by name, and their state as plain tensors and numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from robusteval.methods.base import MethodParams


def build_optimizer(
    params: MethodParams, parameters: Iterable[Tensor] | Iterable[dict[str, Any]]
) -> torch.optim.Optimizer:
    """SGD with heavy-ball momentum, or Adam with torch's constants; no state is carried over from anywhere."""
    trained: list[Any] = list(parameters)
    if params.optimizer == "adam":
        return torch.optim.Adam(trained, lr=params.lr, weight_decay=params.weight_decay)
    return torch.optim.SGD(trained, lr=params.lr, momentum=params.momentum, weight_decay=params.weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use `lr` from the next step on, in every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser as `{position of the parameter}/{name}` to tensor.

    Entries that are None, such as the buffer of SGD without momentum, are left out.
    """
    return {
        f"{position}/{name}": value
        for position, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
        if value is not None
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`, for an optimiser over the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for place, value in tensors.items():
        position, _, name = place.partition("/")
        state.setdefault(int(position), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
