"""Cheap checks for gradient masking (Athalye, Carlini and Wagner, ICML 2018; Carlini et al., 2019).

A robust accuracy is an upper bound that depends on the attack; these symptoms say where the bound is likely loose.
Each check looks at a few fixed examples and answers with a flag that carries its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from robusteval.attacks.gradient import Pgd, PgdParams, cross_entropy, input_gradient, negative_margin
from robusteval.attacks.symptoms import NAN_GRADIENT, NAN_LOGITS, ZERO_GRADIENT
from robusteval.data.batches import Batch
from robusteval.evaluators.model_checks import has_gradient
from robusteval.evaluators.output_checks import enough, output_flags
from robusteval.models.classifier import Classifier
from robusteval.schema.records import Flag
from robusteval.schema.threats import Threat
from robusteval.schema.types import Access, Epsilon, Norm, ThreatModel

CHECKED = 32
"""Examples the checks look at: the first correctly classified ones in key order."""
BLACK_BOX_SHARE = 0.01
"""Share of the examples it saw that a black-box attack must break, and at least two."""
LATE_SHARE = 0.02
"""Share of the correctly classified examples that may break in the second half of a run."""
LATE_EXAMPLES = 3
"""So many must break late whatever their share."""


def masking_flags(model: Classifier, batch: Batch, threat: Threat, seed: int) -> tuple[Flag, ...]:
    """Run every check.

    Args:
        model: the classifier.
        batch: at most `CHECKED` correctly classified examples.
        threat: threat model of the evaluation; larger and smaller balls are tried if it is a ball.
        seed: evaluation seed.
    """
    if not len(batch):
        return ()
    with model.frozen():
        flags = list(output_flags(model, batch, seed))
        if any(flag.code == NAN_LOGITS for flag in flags):
            return tuple(flags)
        if not has_gradient(model, batch.images):
            return (*flags, _no_gradient(len(batch)))
        flags += _gradients(model, batch)
        if isinstance(threat, ThreatModel):
            flags += _not_monotone(model, batch, threat, seed)
        flags += _unbounded(model, batch, seed)
    return tuple(flags)


def _no_gradient(n: int) -> Flag:
    return Flag(
        code="no-gradient",
        severity="warning",
        evidence=f"no gradient leads from the logits back to the pixels, so no gradient check could look at {n} images",
        next_step="read the robust accuracy as one against attacks without gradients, which find less; measure the "
        "network itself if it can be had",
    )


def _gradients(model: Classifier, batch: Batch) -> Iterator[Flag]:
    zero: dict[str, int] = {}
    for name, loss in (("cross-entropy", cross_entropy), ("margin", negative_margin)):
        gradient, _ = input_gradient(model, batch.images, batch.labels, loss)
        size = gradient.flatten(1).abs().amax(dim=1)
        undefined = int((~size.isfinite()).sum())
        if undefined:
            yield Flag(
                code=NAN_GRADIENT,
                severity="error",
                evidence=f"NaN or infinite {name} gradient on {undefined} of {len(batch)} clean images",
                next_step="gradient attacks cannot be trusted here; find the undefined operation or use square",
            )
            return
        zero[name] = int((size == 0).sum())
    if max(zero.values()) >= min(enough(len(batch)), len(batch)):
        yield Flag(
            code=ZERO_GRADIENT,
            severity="warning",
            evidence=f"exactly zero input gradient on {len(batch)} clean images: "
            + ", ".join(f"{count} for the {name} loss" for name, count in zero.items()),
            next_step="look for rounding, hard thresholds or saturated outputs; attack with loss=margin or square",
        )


def _standing(model: Classifier, batch: Batch, threat: ThreatModel, steps: int, seed: int) -> int:
    attack = Pgd(PgdParams(steps=steps), threat)
    result = attack(model, batch.images, batch.labels, keys=batch.keys, seed=seed)
    return int((~result.broken).sum())


def _not_monotone(model: Classifier, batch: Batch, threat: ThreatModel, seed: int) -> Iterator[Flag]:
    """A larger ball contains the smaller one, so it cannot leave more examples standing."""
    if threat.norm is Norm.L1:
        return
    standing = []
    for factor in (Fraction(1, 2), Fraction(1), Fraction(2)):
        scaled = threat.model_copy(update={"epsilon": Epsilon(threat.epsilon.fraction * factor)})
        standing.append(_standing(model, batch, scaled, 5, seed))
    if max(standing[1] - standing[0], standing[2] - standing[1]) >= enough(len(batch)):
        yield Flag(
            code="not-monotone-in-epsilon",
            severity="warning",
            evidence=f"5-step PGD leaves {standing[0]}, {standing[1]} and {standing[2]} of {len(batch)} standing at "
            f"half, one and two times epsilon {threat.epsilon}",
            next_step="gradients mislead at larger distances; use more steps, restarts, or square",
        )


def _unbounded(model: Classifier, batch: Batch, seed: int) -> Iterator[Flag]:
    """With epsilon 1 every image is inside the ball, so an attack that works breaks everything."""
    standing = _standing(model, batch, ThreatModel(norm=Norm.LINF, epsilon=Epsilon(1)), 20, seed)
    if standing >= min(enough(len(batch)), len(batch)):
        yield Flag(
            code="unbounded-epsilon-does-not-reach-zero",
            severity="warning",
            evidence=f"20-step PGD with linf epsilon 1, where any image is allowed, leaves {standing} of {len(batch)} "
            f"standing",
            next_step="the gradients do not lead to errors; use square or an attack adapted to the model",
        )


@dataclass(frozen=True)
class Tally:
    """What one attack of an evaluation did, for the comparison of black box and white box.

    Attributes:
        label: label of the attack.
        access: what it needed to see.
        newly_broken: examples it broke that every white-box attack left standing.
        seen: examples it was run on.
    """

    label: str
    access: Access
    newly_broken: int
    seen: int


def black_box_flags(tallies: Sequence[Tally]) -> tuple[Flag, ...]:
    """Flag attacks without gradients that break what gradient attacks could not."""
    if all(tally.access is not Access.WHITE_BOX for tally in tallies):
        return ()
    return tuple(
        Flag(
            code="black-box-beats-white-box",
            severity="warning",
            evidence=f"{tally.label}, without gradients, broke {tally.newly_broken} of {tally.seen} examples that the "
            f"gradient attacks left standing",
            next_step="gradients are likely masked; raise the queries of square and attack with an adapted loss",
        )
        for tally in tallies
        if tally.access is not Access.WHITE_BOX and tally.newly_broken >= max(2, BLACK_BOX_SHARE * tally.seen)
    )


@dataclass(frozen=True)
class Spread:
    """How an attack's successes are spread over the steps of its runs.

    Attributes:
        label: label of the attack.
        steps: steps of one run.
        late: examples that it broke in the second half of a run.
        seen: examples it was run on.
    """

    label: str
    steps: int
    late: int
    seen: int


def convergence_flags(stages: Sequence[Spread], n: int) -> tuple[Flag, ...]:
    """Flag an evaluation whose accuracy still falls between half of the steps and all of them.

    Args:
        stages: the attacks that say at which step they broke an example.
        n: correctly classified examples.
    """
    late = sum(stage.late for stage in stages)
    if late < max(LATE_EXAMPLES, LATE_SHARE * n):
        return ()
    parts = ", ".join(
        f"{stage.label} {stage.late} of {stage.seen} after step {stage.steps // 2} of {stage.steps}"
        for stage in stages
        if stage.late
    )
    return (
        Flag(
            code="not-converged",
            severity="warning",
            evidence=f"{late} of {n} correctly classified examples broke only in the second half of a run: {parts}",
            next_step="about as many may break with twice the steps; raise steps or queries until few break late",
        ),
    )
