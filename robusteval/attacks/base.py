"""The contract of an attack: it proposes, the library clips, re-verifies and counts.

An attack's own claims are never used. `Attack.__call__` is final: it checks the inputs, freezes the model, lets `run`
propose images, clips them into the exact ball and the pixel box, predicts them again in float32, and reports.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar, final

import torch
from torch import Tensor

from robusteval.attacks import ATTACKS
from robusteval.attacks.geometry import clip_to_threat, perturbation_norm
from robusteval.attacks.guard import check_inputs, check_proposal, untouched
from robusteval.attacks.symptoms import NAN_LOGITS, flags_from_symptoms
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import UsageError
from robusteval.schema.params import canonical_params, checked_params
from robusteval.schema.records import Budget, Flag
from robusteval.schema.types import Access, Component, Frozen, Norm, ThreatModel

P = TypeVar("P", bound=Frozen)

SIGHT = (Access.WHITE_BOX, Access.SCORE, Access.DECISION)
"""What an attacker may see, from most to least."""


@dataclass(frozen=True)
class AttackResult:
    """What an attack achieved on B examples, as verified by the library.

    Attributes:
        adversarial: (B, C, H, W) float32 in [0, 1] and inside the ball; the clean image where nothing was found and
            where the clean image is misclassified already.
        broken: (B,) bool, the model errs on `adversarial` (clean errors and NaN logits count as broken).
        margin: (B,) float32, logit of the label minus the largest other logit on `adversarial`.
        norm: (B,) float32, size of the perturbation in the threat's norm.
        budget: passes spent, verification included.
        flags: symptoms seen on the way, in this batch.
        symptoms: the same as counts of examples, which add up over batches.
        attacked: number of examples that the attack was run on.
    """

    adversarial: Tensor
    broken: Tensor
    margin: Tensor
    norm: Tensor
    budget: Budget
    flags: tuple[Flag, ...] = ()
    symptoms: Mapping[str, int] = field(default_factory=dict)
    attacked: int = 0


class Attack(ABC, Generic[P]):
    """A procedure that looks for a misclassified image inside a threat model.

    Args:
        params: hyper-parameters, validated.
        threat: norm, radius and knowledge.

    Raises:
        UsageError: the attack does not support the threat's norm or needs to see more of the model than the threat
            grants, or the threat is targeted.
    """

    name: ClassVar[str]
    """Registered name, used in messages."""
    Params: ClassVar[type[Frozen]]
    """Hyper-parameters; every field has a default."""
    norms: ClassVar[frozenset[Norm]]
    """Norms the attack supports."""
    access: ClassVar[Access] = Access.WHITE_BOX
    """What the attack needs to see of the model."""
    bounded: ClassVar[bool] = True
    """Whether `run` promises to stay inside the ball; a minimum-norm attack does not, and is clipped silently."""

    def __init__(self, params: P, threat: ThreatModel) -> None:
        if threat.norm not in self.norms:
            valid = ", ".join(sorted(norm.value for norm in self.norms))
            raise UsageError(f"attack {self.name!r} does not support the norm {threat.norm.value}; it supports {valid}")
        if threat.targeted:
            raise UsageError(f"attack {self.name!r} only looks for any wrong class; set targeted: false")
        self.params = params
        self.threat = threat
        if SIGHT.index(self.needs) < SIGHT.index(threat.access):
            raise UsageError(
                f"attack {self.name!r} needs {self.needs.value} access and the threat grants {threat.access.value}"
            )
        self._symptoms: Counter[str] = Counter()

    @property
    def needs(self) -> Access:
        """What the attack needs to see of the model with these parameters."""
        return self.access

    @property
    def composition(self) -> int | None:
        """Number of examples that share one batch and influence each other, such as a bridge's `chunk`.

        None if the result of an example depends on nothing but the example.
        """
        chunk: int | None = getattr(self.params, "chunk", None)
        return chunk

    def stages(self) -> tuple[Attack[Any], ...]:
        """The attacks that this one runs one after the other, each on what the earlier ones left standing."""
        return (self,)

    def check_model(self, model: Classifier) -> None:
        """Refuse a model that the attack cannot work on, before any pass is spent.

        Raises:
            UsageError: such as too few classes for a loss.
        """

    def observe(self, symptom: str, examples: Tensor) -> None:
        """Count the examples (a bool tensor) that show `symptom`; called from `run`."""
        self._symptoms[symptom] += int(examples.sum())

    def absorb(self, result: AttackResult) -> None:
        """Take over the symptoms of an attack that was run inside `run`."""
        self._symptoms.update(result.symptoms)

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
        self.check_model(model)
        check_inputs(self.name, model, images, labels, keys)
        self._symptoms = Counter()
        before = model.passes.snapshot()
        images = images.detach()
        with model.frozen():
            clean_margin, clean_broken = _judge(model, images, labels)
            standing = (~clean_broken).nonzero().flatten()
            adversarial, broken, margin = images.clone(), clean_broken.clone(), clean_margin.clone()
            if len(standing) and float(self.threat.epsilon) > 0:
                candidates = self._propose(model, images[standing], labels[standing], keys[standing], seed)
                new_margin, new_broken = _judge(model, candidates, labels[standing])
                self.observe(NAN_LOGITS, new_margin.isnan())
                found = standing[new_broken]
                adversarial[found] = candidates[new_broken]
                broken[found] = True
                margin[found] = new_margin[new_broken]
        symptoms = {name: count for name, count in sorted(self._symptoms.items()) if count}
        return AttackResult(
            adversarial=adversarial,
            broken=broken,
            margin=margin,
            norm=perturbation_norm(adversarial - images, self.threat.norm),
            budget=model.passes.since(before),
            flags=flags_from_symptoms(self.name, symptoms, len(standing)),
            symptoms=symptoms,
            attacked=len(standing),
        )

    def _propose(self, model: Classifier, images: Tensor, labels: Tensor, keys: Tensor, seed: int) -> Tensor:
        clean = images.clone()
        with untouched(self.name, model):
            proposed = self.run(model, images, labels, keys=keys, seed=seed)
        proposed = check_proposal(self.name, proposed, clean, self.threat, bounded=self.bounded)
        return clip_to_threat(proposed, clean, self.threat)

    @abstractmethod
    def run(self, model: Classifier, images: Tensor, labels: Tensor, *, keys: Tensor, seed: int) -> Tensor:
        """Propose (B, C, H, W) images for examples that the model gets right; never trusted."""

    @classmethod
    def passes(cls, params: Any, classes: int) -> tuple[int, int]:
        """Forward and backward passes spent on an example that survives, for the plan's estimate."""
        return 3, 1


@torch.no_grad()
def _judge(model: Classifier, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Margin (B,) and error (B,) of each image; NaN logits are an error with a NaN margin."""
    with torch.autocast(images.device.type, enabled=False):
        logits = model(images).float()
    own = logits.gather(1, labels[:, None]).squeeze(1)
    margin = own - logits.scatter(1, labels[:, None], float("-inf")).amax(dim=1)
    undefined = logits.isnan().any(dim=1)
    wrong = (logits.argmax(dim=1) != labels) | undefined
    return torch.where(undefined, float("nan"), margin), wrong


def build_attack(component: Component, threat: ThreatModel) -> Attack[Any]:
    """The attack that `component` names, inside `threat`.

    Raises:
        UnknownNameError: the name is not registered.
        UsageError: a parameter is wrong, or the attack does not support the threat.
    """
    attack = ATTACKS.load(component.name)
    return attack(checked_params(f"attack {component.name!r}", attack.Params, component.params), threat)


def resolve_attack(component: Component, threat: ThreatModel) -> Component:
    """The same attack with every parameter present and in canonical form.

    Raises:
        UnknownNameError: the name is not registered.
        UsageError: a parameter is wrong, or the attack does not support the threat.
    """
    params = build_attack(component, threat).params
    return Component(name=component.name, params=canonical_params(params))
