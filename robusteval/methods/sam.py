"""Sharpness-aware minimisation (SAM: Foret et al., ICLR 2021, arXiv 2010.01412).

The scale-invariant form is ASAM (Kwon et al., ICML 2021, arXiv 2102.11600).

    g = grad L(w)
    SAM:  e = rho * g / (||g||_2 + 1e-12)
    ASAM: e = rho * w^2 * g / (|| |w| * g ||_2 + 1e-12)
    w <- base optimiser step at w with grad L(w + e)

The norm is taken over all trained parameters at once, biases and batch norm included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from robusteval.data.batches import Batch
from robusteval.methods.base import Method, MethodParams, TrainingRun
from robusteval.methods.batch_norm import running_statistics_kept
from robusteval.models.classifier import Classifier
from robusteval.schema.types import NonNegativeFloat


class Params(MethodParams):
    """Hyper-parameters of sharpness-aware minimisation."""

    rho: NonNegativeFloat = 0.05
    """Radius of the weight perturbation; 0.05 suits SAM, about 2 suits ASAM; 0 is the base optimiser."""
    adaptive: bool = False
    """Scale the perturbation by the weights (ASAM)."""


@torch.no_grad()
def sharpness_ascent(
    weights: Sequence[Tensor], gradients: Sequence[Tensor], *, rho: float, adaptive: bool = False
) -> list[Tensor]:
    """The perturbation e of the weights, one tensor for each.

    Args:
        weights: w, any shapes.
        gradients: g, in the same order.
        rho: radius.
        adaptive: ASAM instead of SAM.
    """
    scaled = [w.abs() * g if adaptive else g for w, g in zip(weights, gradients, strict=True)]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in scaled]))
    factor = rho / (norm + 1e-12)
    return [factor * (w.square() * g if adaptive else g) for w, g in zip(weights, gradients, strict=True)]


@contextmanager
def moved_weights(weights: Sequence[Tensor], offsets: Sequence[Tensor]) -> Iterator[None]:
    """Add `offsets` to `weights` inside the block; afterwards the old values are copied back, bit for bit."""
    kept = [w.detach().clone() for w in weights]
    try:
        with torch.no_grad():
            for w, offset in zip(weights, offsets, strict=True):
                w.add_(offset)
        yield
    finally:
        with torch.no_grad():
            for w, before in zip(weights, kept, strict=True):
                w.copy_(before)


class Sam(Method[Params]):
    """Step with the gradient taken at the worst nearby weights.

    Running statistics of batch norm see the first pass only. The base optimiser steps at w, so its momentum and weight
    decay act there.

    Cost: 2 forward and backward passes per optimiser step (ERM: 1).
    """

    Params = Params
    precisions = frozenset({"float32", "bfloat16"})

    def loss(self, model: Classifier, batch: Batch) -> Tensor:
        """Mean cross-entropy of the batch."""
        return cross_entropy(self.logits(model, batch.images), batch.labels)

    def step(self, run: TrainingRun, batch: Batch) -> Tensor:
        """Ascend, take the gradient there, come back, descend; the loss returned is that at w."""
        assert run.optimizer is not None
        run.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(run.model, batch)
        torch.autograd.backward(loss)
        weights = [w for group in run.optimizer.param_groups for w in group["params"] if w.grad is not None]
        gradients = [w.grad for w in weights]
        offsets = sharpness_ascent(weights, gradients, rho=self.params.rho, adaptive=self.params.adaptive)
        run.optimizer.zero_grad(set_to_none=True)
        with moved_weights(weights, offsets), running_statistics_kept(run.model):
            torch.autograd.backward(self.loss(run.model, batch))
        run.optimizer.step()
        return loss.detach()

    @classmethod
    def passes(cls, params: Any) -> tuple[float, float]:
        """Two of each."""
        return (2.0, 2.0)
