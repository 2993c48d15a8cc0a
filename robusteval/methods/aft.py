"""Adversarial fine-tuning (Jeddi, Shafiee and Wong, 2020, arXiv 2012.13628).

Starts from a naturally trained model and runs PGD adversarial training for a short time, with a learning rate that
rises slowly, so that natural features survive, and then falls fast, so that the model does not overfit the adversarial
examples. The optimiser is new; no momentum of natural training is carried over. The last weights are kept.

No code was released and the paper's constants are not known to us: shape constants, peak, batch-norm mode and number
of epochs are this project's own defaults and are reported as such.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from robusteval.methods.pgd_at import AdversarialTraining
from robusteval.methods.pgd_at import Params as PgdParams
from robusteval.methods.schedules import slow_start_fast_decay
from robusteval.schema.types import NonNegativeFloat, PositiveFloat, PositiveInt

Curve = Literal["slow-start-fast-decay", "constant", "piecewise", "cosine", "cyclic"]
"""Learning rate over the run."""


class Params(PgdParams):
    """Hyper-parameters of adversarial fine-tuning."""

    epochs: PositiveInt = 10
    """Passes over the training data."""
    batch_size: Annotated[int, Field(ge=2, strict=True)] = 128
    """Examples per optimiser step."""
    lr: PositiveFloat = 0.01
    """Peak learning rate; with another `schedule`, the learning rate of that control."""
    schedule: Curve = "slow-start-fast-decay"  # type: ignore[assignment]  # one value more than the base class has
    """The method's own curve, or a plain schedule as a control."""
    lr_min: NonNegativeFloat = 1e-4
    """Learning rate at the start of the slow start."""
    p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.4
    """Fraction of the steps at which the learning rate peaks."""
    a: PositiveFloat = 2.0
    """Power of the slow start; 1 is a straight line."""
    kappa: NonNegativeFloat = math.log(1000.0)
    """Fast decay: the last learning rate is the peak times exp(-kappa)."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.lr_min > self.lr:
            raise ValueError(f"lr_min {self.lr_min} is above the peak, lr {self.lr}; the slow start could not rise")
        return self


class AdversarialFineTuning(AdversarialTraining[Params]):
    """PGD adversarial training from a natural model, under slow start and fast decay.

    Cost: `steps + 1` forward and backward passes per optimiser step (ERM: 1), without those of the start model.
    """

    Params = Params
    divides = True
    start = "required"

    def learning_rate(self, fraction: float) -> float | None:
        """S(s) at s = `fraction`; None for a control."""
        params = self.params
        if params.schedule != "slow-start-fast-decay":
            return None
        return slow_start_fast_decay(
            fraction, lr_min=params.lr_min, lr_peak=params.lr, p=params.p, a=params.a, kappa=params.kappa
        )
