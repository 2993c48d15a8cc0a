"""The contract of an attack: it proposes, the library clips, re-verifies and counts.

An attack's own claims are never used. `Attack.__call__` is final: it checks the inputs, freezes the model, lets `run`
propose images, clips them into the exact ball and the pixel box, predicts them again in float32, and reports.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, final

from torch import Tensor

from robusteval.models.classifier import Classifier
from robusteval.schema.records import Budget, Flag
from robusteval.schema.types import Access, Frozen, Norm, ThreatModel

P = TypeVar("P", bound=Frozen)


@dataclass(frozen=True)
class AttackResult:
    """What an attack achieved on B examples, as verified by the library.

    Attributes:
        adversarial: (B, C, H, W) float32 in [0, 1] and inside the ball; the clean image where nothing was found.
        broken: (B,) bool, the model errs on `adversarial` (clean errors count as broken).
        margin: (B,) float32, logit of the label minus the largest other logit on `adversarial`.
        norm: (B,) float32, size of the perturbation in the threat's norm.
        budget: passes spent, verification included.
        flags: symptoms seen on the way.
    """

    adversarial: Tensor
    broken: Tensor
    margin: Tensor
    norm: Tensor
    budget: Budget
    flags: tuple[Flag, ...] = ()


class Attack(ABC, Generic[P]):
    """A procedure that looks for a misclassified image inside a threat model.

    Args:
        params: hyper-parameters, validated.
        threat: norm, radius and knowledge.

    Raises:
        UsageError: the attack does not support the threat's norm.
    """

    Params: ClassVar[type[Frozen]]
    """Hyper-parameters; every field has a default."""
    norms: ClassVar[frozenset[Norm]]
    """Norms the attack supports."""
    access: ClassVar[Access] = Access.WHITE_BOX
    """What the attack needs to see of the model."""

    def __init__(self, params: P, threat: ThreatModel) -> None: ...

    @final
    def __call__(self, model: Classifier, images: Tensor, labels: Tensor, *, keys: Tensor, seed: int) -> AttackResult:
        """Attack `images` (B, C, H, W) float32 in [0, 1] with true `labels` (B,) int64.

        Args:
            model: the classifier; its mode, gradients, flags and buffers are unchanged afterwards.
            images: clean images.
            labels: true labels.
            keys: (B,) int64 hashes of the example ids; all randomness comes from (seed, key, attack, restart).
            seed: evaluation seed.

        Raises:
            CellError: the inputs or the attack's output break the contract (NaN, wrong shape, outside the box).
        """
        raise NotImplementedError

    @abstractmethod
    def run(self, model: Classifier, images: Tensor, labels: Tensor, *, keys: Tensor, seed: int) -> Tensor:
        """Propose (B, C, H, W) images for examples that the model gets right; never trusted."""

    @classmethod
    def passes(cls, params: Any, classes: int) -> tuple[int, int]:
        """Forward and backward passes spent on an example that survives, for the plan's estimate."""
        raise NotImplementedError
