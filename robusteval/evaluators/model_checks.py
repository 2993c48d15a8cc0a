"""Refusing a model that cannot be attacked, by name of what is wrong and of the examples that showed it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from robusteval.models.classifier import Classifier
from robusteval.schema.errors import CellError, ExampleError, RobustevalError

SHOWN = 5
"""Example ids in one message."""


def check_devices(model: Classifier) -> None:
    """Refuse a model that is spread over several devices.

    Raises:
        CellError: naming a parameter or buffer that lives elsewhere.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.device != model.device:
            raise CellError(
                f"the model lives on {model.device} and its {name} on {tensor.device}; move all of it to one device"
            )


def clean_logits(model: Classifier, images: Tensor, ids: Sequence[str]) -> Tensor:
    """Logits (B, K) of clean images (B, C, H, W) with these ids, from a frozen model.

    Raises:
        CellError: the model raises, changes its own buffers, or answers with NaN; the examples are named.
    """
    before = _buffers(model)
    with torch.no_grad(), raising_on(ids):
        logits: Tensor = model(images)
    changed = [name for name, mark in _buffers(model).items() if before.get(name) != mark]
    if changed:
        raise CellError(
            f"the model changed its own buffers {', '.join(changed[:3])} when it predicted {_named(ids)}, so its "
            f"answers depend on what it has seen; make it stateless in evaluation mode"
        )
    undefined = logits.isnan().any(dim=1).tolist()
    if any(undefined):
        wrong = [name for name, bad in zip(ids, undefined, strict=True) if bad]
        raise CellError(
            f"the model answered with NaN on {_named(wrong)}; make its logits finite on every image in [0, 1]"
        )
    return logits


@contextmanager
def naming_examples(ids: Mapping[int, str]) -> Iterator[None]:
    """Name the examples of an error by their ids, which are given by key.

    Raises:
        CellError: what was raised inside.
    """
    try:
        yield
    except ExampleError as error:
        raise error.named(ids) from error


def _buffers(model: Classifier) -> dict[str, tuple[int, int]]:
    """What tells whether a buffer was written to or replaced, without waiting for the device."""
    return {name: (id(buffer), buffer._version) for name, buffer in model.named_buffers()}


@contextmanager
def raising_on(ids: Sequence[str]) -> Iterator[None]:
    """Say on which examples the network raised; what this package or a full memory raises stays as it is."""
    try:
        yield
    except (RobustevalError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise CellError(f"the model raised {type(error).__name__} on {_named(ids)}: {error}") from error


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return f"example {', '.join(ids[:SHOWN])}{more}"
