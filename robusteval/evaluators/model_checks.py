"""Refusing a model that cannot be attacked, by name of what is wrong and of the examples that showed it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from robusteval.evaluators.repetition import LOGIT_TOLERANCE, ask_again, generators_kept
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import CellError, ExampleError, RobustevalError

SHOWN = 5
"""Example ids in one message."""
REPEATED = 16
"""Images that a model is asked about again, to see whether it remembers."""


class ModelError(CellError):
    """The network raised something; that is the cause of this error."""


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
        CellError: the model raises, changes its own buffers, or answers with NaN or infinity; the examples are named.
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
    undefined = (~logits.isfinite()).any(dim=1).tolist()
    if any(undefined):
        wrong = [name for name, bad in zip(ids, undefined, strict=True) if bad]
        found = "NaN" if bool(logits.isnan().any()) else "infinite logits"
        raise CellError(
            f"the model answered with {found} on {_named(wrong)}; make its logits finite on every image in [0, 1]"
        )
    return logits


def check_memory(model: Classifier, images: Tensor, ids: Sequence[str]) -> None:
    """Refuse a model that answers the same images otherwise when it is asked again with the same random numbers.

    Buffers are not all that a network can remember with; a counter among its attributes, a list, or a generator of its
    own leave no trace but the answers. At most the first `REPEATED` images are asked about, and the passes are no part
    of what measuring costs. A difference that shows later or elsewhere goes unseen.

    Args:
        model: the classifier, frozen.
        images: (B, C, H, W) clean images.
        ids: their ids.

    Raises:
        CellError: the model remembers, or raises; the examples are named.
    """
    before, images, ids = model.passes.snapshot(), images[:REPEATED], ids[:REPEATED]
    with torch.no_grad(), raising_on(ids), generators_kept(images.device) as draws:
        found = ask_again(model, model(images), images, draws)
    model.passes.forward = before.forward
    if found.again is not None and found.remembers:
        change = (found.first - found.again).abs().amax(dim=1)
        changed = (change > LOGIT_TOLERANCE * found.first.abs().amax()).tolist()
        wrong = [name for name, bad in zip(ids, changed, strict=True) if bad]
        raise CellError(
            f"the model answered otherwise when asked again about {_named(wrong)}, with the same random numbers: "
            f"it remembers what it has seen, or draws from a generator of its own; make it stateless in evaluation "
            f"mode, and let it draw from torch's generator"
        )


def check_gradient(model: Classifier, images: Tensor, ids: Sequence[str]) -> None:
    """Refuse a model whose logits no gradient leads back from; one pass, which is no part of what measuring costs.

    Args:
        model: the classifier, frozen.
        images: (B, C, H, W) clean images, of which the first is shown.
        ids: their ids.

    Raises:
        CellError: there is no gradient, or the model raises.
    """
    with raising_on(ids[:1]):
        found = has_gradient(model, images)
    if not found:
        raise CellError(
            f"no gradient leads from the logits of example {ids[0]} back to its pixels, and an attack needs it; take "
            f"no_grad, detach and numpy out of the model, or attack with square alone"
        )


def has_gradient(model: Classifier, images: Tensor) -> bool:
    """Whether a gradient leads from the logits of the first image back to its pixels; one pass that is not counted."""
    before = model.passes.snapshot()
    with torch.enable_grad():
        logits = model(images[:1].clone().requires_grad_())
    model.passes.forward = before.forward
    return bool(logits.requires_grad)


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
    """Say on which examples the network raised; what this package or a full memory raises stays as it is.

    Raises:
        ModelError: with what the network raised as its cause.
    """
    try:
        yield
    except (RobustevalError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ModelError(f"the model raised {type(error).__name__} on {_named(ids)}: {error}") from error


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return f"example {', '.join(ids[:SHOWN])}{more}"
