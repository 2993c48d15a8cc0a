"""The contract of a training method and of the run that the trainer hands to it.

The trainer owns the loop: batches, schedule, validation, selection, checkpoints. A method owns what is minimised, and
may prepare the model before the first epoch and finish it after the last one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from robusteval.data.batches import Batch, DeviceSet
from robusteval.methods.batch_norm import freeze_batch_norm
from robusteval.methods.parallel import ALONE, Ranks, weighted
from robusteval.models.classifier import Classifier, PassCounter
from robusteval.schema.specs import ComponentSpec
from robusteval.schema.types import (
    Frozen,
    JsonValue,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Progress,
)
from robusteval.store.scratch import Scratch

P = TypeVar("P", bound="MethodParams")


class MethodParams(Frozen):
    """Hyper-parameters that every method has; a method's own defaults may differ."""

    epochs: PositiveInt = 30
    """Passes over the training data."""
    iterations: PositiveInt | None = None
    """Optimiser steps of the whole run, instead of `epochs`: batches are then drawn with replacement, equally many
    examples of every training domain, as DomainBed does."""
    evaluate_every: PositiveInt = 300
    """Steps between two validations where `iterations` is given; otherwise every epoch ends with one."""
    batch_size: Annotated[int, Field(ge=2, strict=True)] = 64
    """Examples per optimiser step, at least 2: batch statistics of one image are not defined."""
    drop_last: bool = False
    """Leave out a last batch that is not full; the examples differ from epoch to epoch."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Optimiser."""
    lr: PositiveFloat = 0.1
    """Peak learning rate."""
    momentum: NonNegativeFloat = 0.9
    """Momentum of SGD; Adam ignores it."""
    weight_decay: NonNegativeFloat = 5e-4
    """L2 penalty, added to the gradient of every parameter."""
    schedule: Literal["constant", "piecewise", "cosine", "cyclic"] = "cosine"
    """Learning rate over the run, set once per step; momentum is never cycled."""
    batch_norm: Literal["train", "frozen"] = "train"
    """`frozen` normalises with the start model's statistics throughout; scale and offset are trained either way."""
    augment: tuple[ComponentSpec, ...] = ()
    """Augmentations of training batches, in order (`pad-crop`, `flip`, ...)."""
    select: Literal["last", "best-validation", "leave-one-domain-out"] = "last"
    """Which validation's weights are kept, an epoch's or those of `evaluate_every` steps: the last, the best one on
    validation data of the training domains, or the best one of further trainings on the domain that each leaves out."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Autocast of training forwards where the method allows it; attacks and double backprop stay in float32."""


def no_progress(fraction: float, what: str) -> None:
    """Report to nobody."""


@dataclass
class TrainingRun:
    """One training run in progress.

    Attributes:
        model: the classifier being trained, on its device.
        train: training examples.
        validation: validation examples of the training domains; the only data that may select anything.
        seed: seed of the train cell.
        epoch: epoch under way, from 0.
        iteration: optimiser steps done.
        total_iterations: optimiser steps in the whole run.
        optimizer: set by the trainer after `Method.prepare`.
        scratch: survives a kill; for expensive preparation results.
        progress: told the finished fraction of the current phase and what runs now.
        diagnostics: what the method wants to have in the record.
        selection: passes spent inside `selecting`.
        selected_on: set by a method that selects by itself, to say on which data.
        ranks: processes that share the run.
    """

    model: Classifier
    train: DeviceSet
    validation: DeviceSet
    seed: int
    epoch: int = 0
    iteration: int = 0
    total_iterations: int = 0
    optimizer: torch.optim.Optimizer | None = None
    scratch: Scratch | None = None
    progress: Progress = no_progress
    diagnostics: dict[str, JsonValue] = field(default_factory=dict)
    selection: PassCounter = field(default_factory=PassCounter)
    selected_on: str | None = None
    ranks: Ranks = ALONE

    @contextmanager
    def selecting(self) -> Iterator[None]:
        """Count the passes of what runs inside as selection, apart from training."""
        before = self.model.passes.snapshot()
        try:
            yield
        finally:
            spent = self.model.passes.since(before)
            self.selection.forward += spent.forward
            self.selection.backward += spent.backward


class Method(ABC, Generic[P]):
    """A training recipe.

    Args:
        params: hyper-parameters, validated.
    """

    Params: ClassVar[type[MethodParams]]
    """Hyper-parameters; every field has a default."""
    protocol: ClassVar[int] = 1
    """Raised by hand when results change; part of the cell key."""
    start: ClassVar[Literal["optional", "required"]] = "optional"
    """Whether a start model is needed."""
    trains: ClassVar[bool] = True
    """Whether anything is trained; if not, the start model is the result and no training image is read."""
    replaces_head: ClassVar[bool] = False
    """Whether `prepare` gives a start model with another number of classes a new head; else it is refused."""
    counts_epochs: ClassVar[bool] = False
    """Whether the recipe is defined over epochs, so that `iterations` is refused."""
    selects_itself: ClassVar[bool] = False
    """Whether `finish` chooses the weights, so that those before it stand for no result."""
    precisions: ClassVar[frozenset[str]] = frozenset({"float32"})
    """Values of `precision` that the method supports; others are refused when parameters are resolved."""
    divides: ClassVar[bool] = False
    """Whether several processes may share a run: `loss` is the mean of a loss of each example, whatever is drawn is
    drawn through `parallel.drawn_like`, and `step`, `prepare` and `finish` see no example that others have to see."""
    shares: ClassVar[tuple[float, float]] = (0.0, 0.0)
    """Rough fractions of the wall time that `prepare` and `finish` take; what they report is scaled into them."""

    def __init__(self, params: P) -> None:
        self.params = params

    def prepare(self, run: TrainingRun) -> None:
        """Change the model or compute what training needs; called before the optimiser exists, also on resume.

        Must be deterministic given the run's start weights and seed, because a resumed run calls it again before the
        saved state is loaded. torch's global generators are seeded when it starts.
        """

    def parameters(self, run: TrainingRun) -> Iterable[Tensor] | Iterable[dict[str, Any]]:
        """What the optimiser updates: tensors, or torch's parameter groups; all share one learning rate."""
        return (parameter for parameter in run.model.parameters() if parameter.requires_grad)

    def set_mode(self, model: Classifier) -> None:
        """Set module modes at the start of every epoch."""
        model.train()
        if self.params.batch_norm == "frozen":
            freeze_batch_norm(model)

    def logits(self, model: Classifier, images: Tensor) -> Tensor:
        """Logits (B, classes) of a training forward, in the precision the parameters ask for, as float32."""
        half = self.params.precision == "bfloat16"
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=half):
            logits: Tensor = model(images)
        return logits.float()

    @abstractmethod
    def loss(self, model: Classifier, batch: Batch) -> Tensor:
        """Scalar loss of one batch; images are augmented already."""

    def step(self, run: TrainingRun, batch: Batch) -> Tensor:
        """One optimiser step; returns the detached loss. Override for methods with more than one pass."""
        assert run.optimizer is not None
        run.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(run.model, batch)
        torch.autograd.backward(weighted(loss, batch))
        run.ranks.sum_gradients(parameter for group in run.optimizer.param_groups for parameter in group["params"])
        run.optimizer.step()
        return loss.detach()

    def learning_rate(self, fraction: float) -> float | None:
        """Learning rate at `fraction` in (0, 1] of all steps; None leaves it to `params.schedule`."""
        return None

    def begin_epoch(self, run: TrainingRun) -> None:
        """Called before the first batch of every epoch."""

    def validation_score(self, run: TrainingRun) -> float | None:
        """Robust accuracy on validation data, for methods that train for it; None where clean accuracy selects.

        Called in evaluation mode after the last epoch, and after every epoch if `select` is `best-validation`.
        """
        return None

    def state(self) -> dict[str, Tensor]:
        """Tensors of the method itself that a resumed run needs (learned styles, saved weights)."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`; the tensors are on the device of the model."""

    def finish(self, run: TrainingRun) -> None:
        """Called once with the selected weights loaded and the model in evaluation mode: interpolate, remove layers."""

    @classmethod
    def passes(cls, params: Any) -> tuple[float, float]:
        """Forward and backward passes per example and epoch, for the plan's estimate."""
        return (1.0, 1.0)
