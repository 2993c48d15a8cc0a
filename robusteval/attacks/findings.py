"""What goes into an attack and what comes out of it, per example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from robusteval.schema.records import Budget, Flag


@dataclass(frozen=True)
class Verdict:
    """What became of one example; the engine gives it the moment it is decided.

    Attributes:
        example: position in the call's images.
        broken: the original model errs, in float32, on an image inside the threat model.
        run: restart or target that broke it, from 0; -1 for a survivor.
        step: step of that run, from 1; for a survivor the steps of all its runs.
        margin: logit of the label minus the largest other logit, on the adversarial or the clean image.
        norm: size of the perturbation in the threat's norm.
        forward: forward passes spent on this example by the attack, verification included.
        backward: backward passes.
        symptoms: what its runs met, named as in `attacks.symptoms`.
        attack: member of an ensemble that broke it; empty for survivors and for attacks by themselves.
        image: (C, H, W) adversarial image of a broken example, verified; a view, for who hears the verdict.
    """

    example: int
    broken: bool
    run: int
    step: int
    margin: float
    norm: float
    forward: int
    backward: int
    symptoms: tuple[str, ...] = ()
    attack: str = ""
    image: Tensor | None = field(default=None, compare=False, repr=False)


OnVerdict = Callable[[Verdict], None]


@dataclass(frozen=True)
class Standing:
    """N examples that the model gets right.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64.
        keys: (N,) int64 hashes of the example ids.
        logits: (N, K) float32 clean logits of the original model.
    """

    images: Tensor
    labels: Tensor
    keys: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return int(self.labels.shape[0])


@dataclass(frozen=True)
class Found:
    """What an attack found on N examples, verified.

    Attributes:
        images: (N, C, H, W); read only where `broken`.
        broken: (N,) bool.
        margin: (N,) float32 margins on `images`.
        verdicts: one an example from attacks that the engine runs, else empty.
    """

    images: Tensor
    broken: Tensor
    margin: Tensor
    verdicts: tuple[Verdict, ...] = ()


@dataclass(frozen=True)
class AttackResult:
    """What an attack achieved on B examples, as verified by the library.

    Attributes:
        adversarial: (B, C, H, W) float32 in [0, 1] and inside the ball; the clean image where nothing was found and
            where the clean image is misclassified already.
        broken: (B,) bool, the model errs on `adversarial` (clean errors and NaN logits count as broken).
        margin: (B,) float32, logit of the label minus the largest other logit on `adversarial`.
        norm: (B,) float32, size of the perturbation in the threat's norm; in linf where the threat is no ball.
        budget: passes spent, verification included.
        flags: symptoms seen on the way, in this batch.
        symptoms: the same as counts of examples, which add up over batches.
        attacked: number of examples that the attack was run on.
        verdicts: per attacked example, from attacks that the engine runs; empty otherwise.
    """

    adversarial: Tensor
    broken: Tensor
    margin: Tensor
    norm: Tensor
    budget: Budget
    flags: tuple[Flag, ...] = ()
    symptoms: Mapping[str, int] = field(default_factory=dict)
    attacked: int = 0
    verdicts: tuple[Verdict, ...] = ()
