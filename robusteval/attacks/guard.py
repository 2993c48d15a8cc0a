"""Checks around an attack: what may go in, what may come out, and what must be as before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from robusteval.attacks.geometry import perturbation_norm
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import CellError, ExampleError
from robusteval.schema.types import ThreatModel

BOX_TOLERANCE = 1e-5
"""How far a proposal may leave [0, 1] before it counts as a broken promise instead of float rounding."""
BALL_TOLERANCE = 1e-3
"""How far a bounded attack's proposal may leave the ball, relative to the radius; it is clipped all the same."""


def _refuse(text: str, wrong: Tensor, keys: Tensor) -> None:
    """Raise an error with `text` about the examples that are `wrong` (B,) bool, if there is one."""
    if bool(wrong.any()):
        where = wrong.nonzero().flatten()
        raise ExampleError(text, where.tolist(), keys.to(wrong.device)[where].tolist())


def check_inputs(attack: str, model: Classifier, images: Tensor, labels: Tensor, keys: Tensor) -> None:
    """Refuse inputs outside the contract.

    Raises:
        CellError: wrong shape, type or device, NaN, pixels outside [0, 1], or labels the model does not have.
    """
    count = images.shape[0]
    if tuple(images.shape[1:]) != tuple(model.input_shape) or images.ndim != 4:
        raise CellError(
            f"attack {attack!r}: images have shape {tuple(images.shape)}; the model takes (B, *{model.input_shape})"
        )
    if images.dtype != torch.float32:
        raise CellError(f"attack {attack!r}: images are {images.dtype}; pass float32 in [0, 1]")
    for what, values in (("labels", labels), ("keys", keys)):
        if tuple(values.shape) != (count,) or values.dtype != torch.int64:
            raise CellError(f"attack {attack!r}: {what} must be int64 of shape ({count},), one an image")
    devices = {images.device, labels.device, keys.device, model.device}
    if len(devices) > 1:
        raise CellError(f"attack {attack!r}: images, labels, keys and model must share one device, not {devices}")
    outside = ~((images >= 0) & (images <= 1)).flatten(1).all(dim=1)
    text = "pixels outside [0, 1] or NaN in {}; pass unnormalised images, the model normalises by itself"
    _refuse(f"attack {attack!r}: {text}", outside, keys)
    unknown = (labels < 0) | (labels >= model.classes)
    _refuse(f"attack {attack!r}: labels outside 0..{model.classes - 1} in " + "{}", unknown, keys)


def check_proposal(
    attack: str, proposed: Tensor, clean: Tensor, threat: ThreatModel, *, keys: Tensor, bounded: bool
) -> Tensor:
    """Refuse what an attack must never return; rounding is forgiven and clipped by the caller.

    Raises:
        CellError: wrong shape, NaN, outside the box, or, for a bounded attack, outside the ball.
    """
    if not isinstance(proposed, Tensor) or proposed.shape != clean.shape:
        shape = tuple(proposed.shape) if isinstance(proposed, Tensor) else type(proposed).__name__
        raise CellError(f"attack {attack!r} returned {shape} instead of images of shape {tuple(clean.shape)}")
    proposed = proposed.detach().to(clean.device, torch.float32)
    undefined = ~proposed.isfinite().flatten(1).all(dim=1)
    _refuse(f"attack {attack!r} returned NaN or infinite pixels for " + "{}", undefined, keys)
    outside = ((proposed < -BOX_TOLERANCE) | (proposed > 1 + BOX_TOLERANCE)).flatten(1).any(dim=1)
    if bool(outside.any()):
        low, high = float(proposed.min()), float(proposed.max())
        text = f"attack {attack!r} left the pixel box for " + "{}" + f": pixels in [{low:.4g}, {high:.4g}]"
        _refuse(text, outside, keys)
    if bounded:
        radius = float(threat.epsilon)
        size = perturbation_norm(proposed - clean, threat.norm)
        too_far = size > radius * (1 + BALL_TOLERANCE) + BOX_TOLERANCE
        if bool(too_far.any()):
            text = f"attack {attack!r} left the {threat} ball for " + "{}" + f": largest {float(size.max()):.6g}"
            _refuse(text, too_far, keys)
    return proposed


@contextmanager
def untouched(attack: str, model: Classifier) -> Iterator[None]:
    """Check that the model inside `Classifier.frozen` comes out as it went in.

    Buffers that changed are put back before the error is raised. Modules that were in training mode before, whatever
    `eval` asked of them, are not the attack's doing.

    Raises:
        CellError: modules left evaluation mode, parameters, their flags or gradients, or buffers changed.
    """
    buffers = [(name, buffer, buffer.clone()) for name, buffer in model.named_buffers()]
    parameters = [
        (name, value, value._version, value.grad, None if value.grad is None else value.grad._version)
        for name, value in model.named_parameters()
    ]
    stubborn = {name for name, module in model.named_modules() if module.training}
    changed: list[str] = []
    try:
        yield
    finally:
        for name, buffer, saved in buffers:
            if not torch.equal(buffer, saved):
                changed.append(name)
                with torch.no_grad():
                    buffer.copy_(saved)
    if changed:
        raise CellError(
            f"attack {attack!r} changed the model's buffers {', '.join(changed[:3])}; in evaluation mode nothing may "
            f"change them, or every answer depends on the ones before"
        )
    training = [name for name, module in model.named_modules() if module.training and name not in stubborn]
    if training:
        raise CellError(
            f"attack {attack!r} put {', '.join(name or 'the model' for name in training[:3])} into training mode"
        )
    for name, value, version, gradient, gradient_version in parameters:
        if value._version != version or value.requires_grad:
            raise CellError(f"attack {attack!r} changed the parameter {name} or its requires_grad flag")
        if value.grad is not gradient or (gradient is not None and gradient._version != gradient_version):
            raise CellError(f"attack {attack!r} left a gradient in the parameter {name}")
