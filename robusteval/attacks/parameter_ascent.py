"""Gradient ascent on the parameters of a transformation, leaving each example as soon as it is broken."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robusteval.attacks.gradient import Loss
from robusteval.attacks.restarts import Trail
from robusteval.attacks.transforms import Transform
from robusteval.models.classifier import Classifier


def ascend_parameters(
    model: Classifier,
    transform: Transform,
    clean: Tensor,
    labels: Tensor,
    *,
    start: Tensor,
    step_sizes: Sequence[float],
    loss: Loss,
) -> Trail:
    """Signed gradient steps in the box [-1, 1] of the parameters.

    Args:
        model: the classifier, frozen.
        transform: renders images.
        clean: (B, C, H, W) clean images.
        labels: (B,) true labels.
        start: (B, ...) parameters to start from.
        step_sizes: length of each step in shares of the limits; each costs one forward and one backward pass.
        loss: what is raised.
    """
    parameters = transform.clip(start)
    broken = torch.zeros_like(labels, dtype=torch.bool)
    stuck, undefined = torch.zeros_like(broken), torch.zeros_like(broken)
    active = torch.arange(len(labels), device=labels.device)
    for step_size in step_sizes:
        gradient, logits = parameter_gradient(model, transform, clean[active], parameters[active], labels[active], loss)
        size = gradient.flatten(1).abs().amax(dim=1)
        wrong = logits.argmax(dim=1) != labels[active]
        stuck[active] |= (size == 0) & ~wrong
        undefined[active] |= ~size.isfinite()
        broken[active[wrong]] = True
        direction = gradient[~wrong].nan_to_num(0.0, 0.0, 0.0).sign()
        active = active[~wrong]
        if not len(active):
            break
        parameters[active] = transform.clip(parameters[active] + step_size * direction)
    if len(active):
        with torch.no_grad():
            images = transform.render(clean[active], parameters[active])
            broken[active] = model(images).argmax(dim=1) != labels[active]
    return Trail(parameters, broken, stuck & ~broken, undefined)


def parameter_gradient(
    model: Classifier, transform: Transform, clean: Tensor, parameters: Tensor, labels: Tensor, loss: Loss
) -> tuple[Tensor, Tensor]:
    """Gradient of each example's loss with respect to its own parameters, and the logits; both detached."""
    with torch.enable_grad(), torch.autocast(clean.device.type, enabled=False):
        variable = parameters.detach().requires_grad_()
        logits = model(transform.render(clean, variable))
        (gradient,) = torch.autograd.grad(loss(logits, labels).sum(), variable)
    return gradient.detach(), logits.detach()
