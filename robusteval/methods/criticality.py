"""Module robust criticality: how much robustness a small change of one module can destroy.

Zhu et al., ICCV 2023, arXiv 2308.02533, section 3:  for module i with weights W0, and R the mean cross-entropy on
adversarial examples made once against the unchanged model,

    MRC(i) = max over ||D|| <= radius * ||W0||  of  R(W0 + D) - R(W0)

found by plain gradient ascent with one projection an epoch. The paper's algorithm stops at the first projection; its
released code goes on for all epochs, and so does this. The code takes the adversarial examples from the test set;
here they come from the training set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robusteval.models.classifier import Classifier
from robusteval.schema.digest import stable_int
from robusteval.schema.errors import CellError


@dataclass(frozen=True)
class AscentSettings:
    """How the worst change of a module is looked for.

    Attributes:
        radius: largest change of a weight tensor relative to its norm.
        epochs: passes over the adversarial examples.
        lr: step of gradient ascent.
        batch_size: examples per step.
        seed: fixes the order of the examples.
    """

    radius: float = 0.1
    epochs: int = 10
    lr: float = 1.0
    batch_size: int = 512
    seed: int = 0


def candidates(network: nn.Module) -> dict[str, Tensor]:
    """Weight tensors of all Conv2d and Linear modules by module name; a tensor shared by two modules counts once."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and id(module.weight) not in seen:
            seen.add(id(module.weight))
            found[name] = module.weight
    return found


@torch.no_grad()
def mean_loss(model: Classifier, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    """Mean cross-entropy, a scalar on the device."""
    total = torch.zeros((), device=images.device)
    for start in range(0, len(labels), batch_size):
        part = slice(start, start + batch_size)
        total += cross_entropy(model(images[part]), labels[part], reduction="sum")
    return total / len(labels)


def module_criticality(
    model: Classifier,
    weight: Tensor,
    name: str,
    adversarial: tuple[Tensor, Tensor],
    settings: AscentSettings,
    watch: Callable[[Tensor], None] | None = None,
) -> float:
    """Criticality of one module; the model is as before afterwards, bit for bit.

    Args:
        model: the adversarially trained classifier.
        weight: the module's weight tensor.
        name: the module's name; with the seed it fixes the order of the examples.
        adversarial: images (N, C, H, W) and true labels (N,).
        settings: the ascent.
        watch: shown the change of the weight after every projection.

    Raises:
        CellError: the ascent left the finite numbers.
    """
    images, labels = adversarial
    origin = weight.detach().clone()
    with model.frozen():
        weight.requires_grad_(True)
        before = mean_loss(model, images, labels, settings.batch_size)
        losses = []
        try:
            for epoch in range(settings.epochs):
                _ascend_one_epoch(model, weight, (images, labels), settings, f"{name}/{epoch}")
                _project(weight, origin, settings.radius)
                if watch is not None:
                    watch(weight.detach() - origin)
                losses.append(mean_loss(model, images, labels, settings.batch_size))
        finally:
            with torch.no_grad():
                weight.copy_(origin)
    value = float(torch.stack(losses).max() - before)
    if value != value or value in (float("inf"), float("-inf")):
        raise CellError(f"rift: the ascent on module {name!r} diverged; lower params.criticality_lr ({settings.lr})")
    return value


def _ascend_one_epoch(
    model: Classifier, weight: Tensor, data: tuple[Tensor, Tensor], settings: AscentSettings, place: str
) -> None:
    images, labels = data
    generator = torch.Generator().manual_seed(stable_int("criticality", settings.seed, place))
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    for start in range(0, len(labels), settings.batch_size):
        part = order[start : start + settings.batch_size]
        (gradient,) = torch.autograd.grad(cross_entropy(model(images[part]), labels[part]), weight)
        with torch.no_grad():
            weight.add_(gradient, alpha=settings.lr)


@torch.no_grad()
def _project(weight: Tensor, origin: Tensor, radius: float) -> None:
    """Scale the change back to `radius` times the norm of the original weights, without waiting for the device."""
    change = weight - origin
    ratio = torch.linalg.vector_norm(change) / torch.linalg.vector_norm(origin).clamp_min(1e-12)
    factor = torch.where(ratio > radius, radius / ratio, 1.0)
    # An overflowed norm would scale the change to nothing and pass for a module without criticality.
    factor = torch.where(torch.isfinite(ratio), factor, float("nan"))
    weight.copy_(origin + change * factor)
