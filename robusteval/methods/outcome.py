"""What a training run found."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robusteval.models.classifier import Classifier
from robusteval.schema.records import Budget
from robusteval.schema.types import JsonValue


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training run found.

    Attributes:
        model: the classifier with the selected weights, in evaluation mode.
        budget: passes of training, preparation and finishing; without those of a start model.
        selection_budget: passes on validation data.
        selected_on: which data selected the weights: `last` (none did), `validation`, `validation-robust`, or what
            the method says.
        selected_epoch: epoch whose weights were kept, from 1; validations are counted where `iterations` is given.
        history: one object an epoch: `epoch`, `lr` (of its last step), `loss`, `validation_accuracy`, and where it was
            computed `validation_robust_accuracy`; `step` where `iterations` is given.
        diagnostics: what the method reported.
        checkpoints: state dictionaries by the rule that would have kept them: `last`, and `training-domain` for the
            best validation; empty where the method chooses by itself.
    """

    model: Classifier
    budget: Budget
    selection_budget: Budget
    selected_on: str
    selected_epoch: int
    history: tuple[dict[str, float], ...]
    diagnostics: dict[str, JsonValue]
    checkpoints: dict[str, dict[str, Tensor]]
