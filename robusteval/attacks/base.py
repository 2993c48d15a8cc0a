"""The contract of an attack: it proposes, the library clips, re-verifies and counts.

An attack's own claims are never used. `Attack.__call__` is final: it checks the inputs, freezes the model, lets `run`
propose images, clips them into the exact ball and the pixel box, predicts them again in float32, and reports.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar, final

import torch
from torch import Tensor

from robusteval.attacks import ATTACKS
from robusteval.attacks.findings import AttackResult, Found, OnVerdict, Standing, Verdict
from robusteval.attacks.geometry import clip_to_threat, perturbation_norm
from robusteval.attacks.guard import check_inputs, check_proposal, untouched
from robusteval.attacks.symptoms import NAN_LOGITS, flags_from_symptoms
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import ExampleError, UsageError
from robusteval.schema.params import canonical_params, checked_params
from robusteval.schema.threats import Threat
from robusteval.schema.types import Access, Component, Frozen, Norm, ThreatModel

__all__ = [
    "JUDGED",
    "SIGHT",
    "Attack",
    "AttackResult",
    "Found",
    "OnVerdict",
    "Standing",
    "Verdict",
    "build_attack",
    "judged",
    "original_logits",
    "resolve_attack",
]

P = TypeVar("P", bound=Frozen)

SIGHT = (Access.WHITE_BOX, Access.SCORE, Access.DECISION)
"""What an attacker may see, from most to least."""

JUDGED = 128
"""Images the original model predicts in one pass when it judges; bounds the memory, never changes verdicts."""


class Attack(ABC, Generic[P]):
    """A procedure that looks for a misclassified image inside a threat model.

    Args:
        params: hyper-parameters, validated.
        threat: what may be done to an image, and what is known of the model.

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
    share: float = 1.0
    """Share of the examples left standing that an ensemble runs this member on, drawn by `cascade.drawn`."""
    bounded: ClassVar[bool] = True
    """Whether `run` promises to stay inside the ball; a minimum-norm attack does not, and is clipped silently."""

    def __init__(self, params: P, threat: Threat) -> None:
        if threat.norm not in self.supports():
            valid = ", ".join(self.supports())
            hint = "" if isinstance(threat, ThreatModel) else f"; use attack {threat.norm!r} there"
            raise UsageError(f"attack {self.name!r} does not support the norm {threat.norm}; it supports {valid}{hint}")
        if threat.targeted:
            raise UsageError(f"attack {self.name!r} only looks for any wrong class; set targeted: false")
        self.params = params
        self.limits: Threat = threat
        if SIGHT.index(self.needs) < SIGHT.index(threat.access):
            raise UsageError(
                f"attack {self.name!r} needs {self.needs.value} access and the threat grants {threat.access.value}"
            )
        self._symptoms: Counter[str] = Counter()

    @classmethod
    def supports(cls) -> tuple[str, ...]:
        """Values of a threat's `norm` that the attack can work in."""
        return tuple(sorted(norm.value for norm in cls.norms))

    @property
    def threat(self) -> ThreatModel:
        """The ball, for attacks that perturb pixels; `limits` is the threat model of any kind."""
        if not isinstance(self.limits, ThreatModel):
            raise TypeError(f"threat {self.limits} of attack {self.name!r} is no ball")
        return self.limits

    @property
    def measure(self) -> Norm:
        """The norm in which the size of a perturbation is reported."""
        return self.threat.norm

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
    def __call__(
        self,
        model: Classifier,
        images: Tensor,
        labels: Tensor,
        *,
        keys: Tensor,
        seed: int,
        on_verdict: OnVerdict | None = None,
    ) -> AttackResult:
        """Attack `images` (B, C, H, W) float32 in [0, 1] with true `labels` (B,) int64.

        Args:
            model: the classifier; its mode, gradients, flags and buffers are unchanged afterwards.
            images: clean images.
            labels: true labels.
            keys: (B,) int64 hashes of the example ids; all randomness comes from (seed, key, attack, restart).
            seed: evaluation seed.
            on_verdict: told each verdict as soon as it is final, by attacks that the engine runs; others never call.

        Raises:
            CellError: the inputs or the attack's output break the contract (NaN, wrong shape, outside the box).
        """
        self.check_model(model)
        check_inputs(self.name, model, images, labels, keys)
        self._symptoms = Counter()
        before = model.passes.snapshot()
        images = images.detach()
        verdicts: tuple[Verdict, ...] = ()
        with model.frozen():
            logits = original_logits(model, images)
            margin, broken = judged(logits, labels)
            adversarial = images.clone()
            standing = (~broken).nonzero().flatten()
            if len(standing) and not self.limits.only_clean:
                place = standing.tolist()
                examples = Standing(images[standing], labels[standing], keys[standing], logits[standing])
                try:
                    found = self._search(model, examples, seed, _translated(on_verdict, place))
                except ExampleError as error:
                    raise error.placed(keys.tolist()) from error
                where = standing[found.broken]
                adversarial[where] = found.images[found.broken]
                broken[where] = True
                margin[where] = found.margin[found.broken]
                verdicts = tuple(replace(verdict, example=place[verdict.example]) for verdict in found.verdicts)
        symptoms = {name: count for name, count in sorted(self._symptoms.items()) if count}
        return AttackResult(
            adversarial=adversarial,
            broken=broken,
            margin=margin,
            norm=perturbation_norm(adversarial - images, self.measure),
            budget=model.passes.since(before),
            flags=flags_from_symptoms(self.name, symptoms, len(standing)),
            symptoms=symptoms,
            attacked=len(standing),
            verdicts=verdicts,
        )

    def _search(self, model: Classifier, examples: Standing, seed: int, on_verdict: OnVerdict | None) -> Found:
        """Let `run` propose, and judge what it proposed."""
        clean = examples.images.clone()
        with untouched(self.name, model):
            proposed = self.run(model, examples.images, examples.labels, keys=examples.keys, seed=seed)
        proposed = check_proposal(self.name, proposed, clean, self.threat, keys=examples.keys, bounded=self.bounded)
        proposed = clip_to_threat(proposed, clean, self.threat)
        margin, broken = judged(original_logits(model, proposed), examples.labels)
        self.observe(NAN_LOGITS, margin.isnan())
        return Found(proposed, broken, margin)

    @abstractmethod
    def run(self, model: Classifier, images: Tensor, labels: Tensor, *, keys: Tensor, seed: int) -> Tensor:
        """Propose (B, C, H, W) images for examples that the model gets right; never trusted."""

    @classmethod
    def passes(cls, params: Any, classes: int) -> tuple[int, int]:
        """Forward and backward passes spent on an example that survives, for the plan's estimate."""
        return 3, 1


@torch.no_grad()
def original_logits(model: Classifier, images: Tensor) -> Tensor:
    """Float32 logits (B, K) of the original model, in passes of at most `JUDGED` images."""
    with torch.autocast(images.device.type, enabled=False):
        parts = [model(part).float() for part in torch.split(images, JUDGED)]
    return torch.cat(parts)


def judged(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Margin (B,) and error (B,) of each image; NaN logits are an error with a NaN margin."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    margin = own - logits.scatter(1, labels[:, None], float("-inf")).amax(dim=1)
    undefined = logits.isnan().any(dim=1)
    wrong = (logits.argmax(dim=1) != labels) | undefined
    return torch.where(undefined, float("nan"), margin), wrong


def _translated(on_verdict: OnVerdict | None, place: list[int]) -> OnVerdict | None:
    """The same listener for verdicts that number examples otherwise."""
    if on_verdict is None:
        return None
    return lambda verdict: on_verdict(replace(verdict, example=place[verdict.example]))


def build_attack(component: Component, threat: Threat) -> Attack[Any]:
    """The attack that `component` names, inside `threat`.

    Raises:
        UnknownNameError: the name is not registered.
        UsageError: a parameter is wrong, or the attack does not support the threat.
    """
    attack = ATTACKS.load(component.name)
    return attack(checked_params(f"attack {component.name!r}", attack.Params, component.params), threat)


def resolve_attack(component: Component, threat: Threat) -> Component:
    """The same attack with every parameter present and in canonical form.

    Raises:
        UnknownNameError: the name is not registered.
        UsageError: a parameter is wrong, or the attack does not support the threat.
    """
    params = build_attack(component, threat).params
    return Component(name=component.name, params=canonical_params(params))
