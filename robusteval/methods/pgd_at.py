"""Adversarial training with PGD (Madry et al., ICLR 2018, arXiv 1706.06083; recipe of Rice et al., ICML 2020).

    x_adv = PGD(x, y);  w <- SGD step on CE(M(x_adv), y)

The released code of Rice et al. also runs a clean forward in training mode at every step, to log clean accuracy; it
mixes clean statistics into batch norm. That forward is left out here.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal, Self, TypeVar

from pydantic import model_validator
from torch import Tensor
from torch.nn.functional import cross_entropy

from robusteval.attacks.gradient import ascend
from robusteval.data.batches import Batch, Rows
from robusteval.methods.base import Method, MethodParams, TrainingRun
from robusteval.methods.parallel import drawn_like
from robusteval.methods.validation import robust_accuracy
from robusteval.models.classifier import Classifier
from robusteval.schema.types import Epsilon, NonNegativeInt, Norm

Init = Literal["rand", "zero", "nfgsm", "gauss"]
"""How the inner maximisation starts."""


class Params(MethodParams):
    """Hyper-parameters of PGD adversarial training."""

    norm: Literal[Norm.LINF, Norm.L2] = Norm.LINF
    """Norm of the perturbation ball."""
    epsilon: Epsilon = Epsilon("8/255")
    """Radius of the perturbation ball, in [0, 1] pixel units."""
    step_size: Epsilon = Epsilon("2/255")
    """Length of one gradient step, in the same units."""
    steps: NonNegativeInt = 10
    """Gradient steps of the inner maximisation; 0 trains on the random start alone."""
    init: Init = "rand"
    """Start: uniform in the ball, `zero`, uniform in twice the ball (`nfgsm`), or 0.001 times a normal (`gauss`)."""
    project: bool = True
    """Project into the ball after every step; N-FGSM does not. Pixels are always clipped to [0, 1]."""
    attack_bn: Literal["train", "eval"] = "train"
    """Batch norm while crafting: as in the training step, running statistics updated, or in evaluation mode."""

    @model_validator(mode="after")
    def _start_is_defined(self) -> Self:
        if self.init == "nfgsm" and self.norm is not Norm.LINF:
            raise ValueError("init 'nfgsm' is defined for norm 'linf' only; use 'rand'")
        return self


P = TypeVar("P", bound=Params)


def random_start(images: Tensor, *, norm: Norm, epsilon: float, init: Init, rows: Rows | None = None) -> Tensor:
    """Start images (B, C, H, W) in [0, 1], drawn from torch's global generator of the device.

    Args:
        images: clean images.
        norm: linf or l2.
        epsilon: radius of the ball.
        init: which start; for l2 `rand` is uniform over the volume of the ball.
        rows: where the images stand in a batch that several processes share.
    """

    def normal() -> Tensor:
        return drawn_like(images, rows, lambda whole, generator: whole.normal_(generator=generator))

    if init == "zero":
        return images.clone()
    if init == "gauss":
        offset = 0.001 * normal()
    elif norm is Norm.LINF:
        radius = 2.0 * epsilon if init == "nfgsm" else epsilon
        offset = drawn_like(images, rows, lambda whole, generator: whole.uniform_(-radius, radius, generator=generator))
    else:
        direction = normal()
        length = direction.flatten(1).norm(dim=1).clamp_min(1e-12)
        uniform = drawn_like(length, rows, lambda whole, generator: whole.uniform_(generator=generator))
        share = uniform ** (1.0 / direction[0].numel())
        offset = direction * (epsilon * share / length).view(-1, 1, 1, 1)
    return (images + offset).clamp_(0.0, 1.0)


class AdversarialTraining(Method[P]):
    """What PGD adversarial training and the methods built on its step share."""

    precisions = frozenset({"float32", "bfloat16"})

    def worst_case(self, model: Classifier, batch: Batch) -> Tensor:
        """Images (B, C, H, W) in [0, 1] inside the ball that raise the loss; crafted in float32, detached."""
        params = self.params
        start = random_start(
            batch.images, norm=params.norm, epsilon=float(params.epsilon), init=params.init, rows=batch.rows
        )
        with model.mode(training=False) if params.attack_bn == "eval" else nullcontext():
            return ascend(
                model,
                batch.images,
                batch.labels,
                norm=params.norm,
                epsilon=float(params.epsilon),
                step_size=float(params.step_size),
                steps=params.steps,
                start=start,
                project=params.project,
            )

    def loss(self, model: Classifier, batch: Batch) -> Tensor:
        """Mean cross-entropy on the worst-case images."""
        return cross_entropy(self.logits(model, self.worst_case(model, batch)), batch.labels)

    def validation_score(self, run: TrainingRun) -> float | None:
        """Accuracy under a short PGD in the training threat model."""
        params = self.params
        return robust_accuracy(
            run.model,
            run.validation,
            norm=params.norm,
            epsilon=float(params.epsilon),
            seed=run.seed,
            ranks=run.ranks,
        )

    @classmethod
    def passes(cls, params: Any) -> tuple[float, float]:
        """One pair for each attack step and one for the loss."""
        return (params.steps + 1.0, params.steps + 1.0)


class PgdTraining(AdversarialTraining[Params]):
    """Minimise the cross-entropy on worst-case images found by PGD.

    Cost: `steps + 1` forward and backward passes per optimiser step (ERM: 1).
    """

    Params = Params
    divides = True
