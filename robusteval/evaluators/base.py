"""The contract of an evaluator: a model and images in, per-example outcomes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from robusteval.data.imageset import ImageSet
from robusteval.models.classifier import Classifier
from robusteval.schema.records import Evaluation
from robusteval.schema.threats import Threat
from robusteval.schema.types import Frozen, Progress
from robusteval.store.scratch import Scratch

P = TypeVar("P", bound=Frozen)


def no_progress(fraction: float, what: str) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class EvaluationContext:
    """What surrounds one evaluation.

    Attributes:
        seed: evaluation seed; with the example's key it fixes every draw.
        threat: threat model, None for clean evaluators.
        batch_size: images per forward pass; never changes results.
        scratch: where partial results survive a kill, or None.
        progress: told the finished fraction and what runs now.
    """

    seed: int = 0
    threat: Threat | None = None
    batch_size: int = 128
    scratch: Scratch | None = None
    progress: Progress = no_progress


class Evaluator(ABC, Generic[P]):
    """Protocol-versioned code that yields one outcome per example.

    The model is in evaluation mode and on its device already; an evaluator never changes it.
    """

    Params: ClassVar[type[Frozen]]
    """Parameters; every field has a default."""
    protocol: ClassVar[int] = 1
    """Raised by hand when results change; part of the cell key."""

    def __init__(self, params: P) -> None:
        self.params = params

    @abstractmethod
    def evaluate(self, model: Classifier, data: ImageSet, context: EvaluationContext) -> Evaluation:
        """Measure `model` on `data`.

        Raises:
            CellError: the model or an attack broke its contract.
        """

    @classmethod
    def passes(cls, params: Any, classes: int) -> tuple[int, int]:
        """Upper bound of forward and backward passes per example, for the plan's estimate."""
        return (1, 0)
