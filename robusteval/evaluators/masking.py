"""Cheap checks for gradient masking (Athalye, Carlini and Wagner, ICML 2018; Carlini et al., 2019).

A robust accuracy is an upper bound that depends on the attack; these symptoms say where the bound is likely loose.
Each check looks at a few fixed examples and answers with a flag that carries its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from robusteval.attacks.gradient import Pgd, PgdParams, cross_entropy, input_gradient, negative_margin
from robusteval.attacks.symptoms import NAN_GRADIENT, NAN_LOGITS, ZERO_GRADIENT
from robusteval.data.batches import Batch
from robusteval.models.classifier import Classifier
from robusteval.schema.records import Flag
from robusteval.schema.threats import Threat
from robusteval.schema.types import Access, Epsilon, Norm, ThreatModel

CHECKED = 32
"""Examples the checks look at: the first correctly classified ones in key order."""
ALONE = 8
"""Of these, how many are also predicted one by one."""
LOGIT_TOLERANCE = 1e-4
"""Difference of two logits, relative to the largest one, from which they count as different."""
SHARE = 0.1
"""Share of the checked examples, rounded up to at least two, that a symptom must reach."""
BLACK_BOX_SHARE = 0.01
"""Share of the examples it saw that a black-box attack must break, and at least two."""


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
        with torch.no_grad():
            logits, again = model(batch.images), model(batch.images)
        undefined = logits.isnan().any(dim=1) | again.isnan().any(dim=1)
        if bool(undefined.any()):
            return (_nan_logits(int(undefined.sum()), len(batch)),)
        flags = [*_softmax_output(logits), *_randomised(logits, again)]
        if not flags or flags[-1].code != "randomised-output":
            flags += _batch_dependent(model, batch, logits)
        flags += _gradients(model, batch)
        if isinstance(threat, ThreatModel):
            flags += _not_monotone(model, batch, threat, seed)
        flags += _unbounded(model, batch, seed)
    return tuple(flags)


def _enough(n: int) -> int:
    return max(2, -int(-SHARE * n // 1))


def _nan_logits(count: int, n: int) -> Flag:
    return Flag(
        code=NAN_LOGITS,
        severity="error",
        evidence=f"NaN logits on {count} of {n} clean images",
        next_step="make the model answer with finite logits on every image in [0, 1]",
    )


def _relative_difference(first: Tensor, second: Tensor) -> float:
    scale = first.abs().amax().clamp_min(1e-12)
    return float((first - second).abs().amax() / scale)


def _softmax_output(logits: Tensor) -> Iterator[Flag]:
    sums = logits.sum(dim=1)
    inside = bool(((logits >= -1e-5) & (logits <= 1 + 1e-5)).all())
    if inside and bool(((sums - 1).abs() < 1e-4).all()):
        yield Flag(
            code="softmax-output",
            severity="warning",
            evidence=f"all {len(logits)} outputs lie in [0, 1] and sum to 1, to {float((sums - 1).abs().amax()):.1e}",
            next_step="return logits instead of probabilities: their gradients vanish where the model is sure",
        )


def _randomised(logits: Tensor, again: Tensor) -> Iterator[Flag]:
    difference = _relative_difference(logits, again)
    if difference > LOGIT_TOLERANCE:
        changed = int((logits.argmax(dim=1) != again.argmax(dim=1)).sum())
        yield Flag(
            code="randomised-output",
            severity="warning",
            evidence=f"two passes over the same {len(logits)} images differ by {difference:.2g} of the largest logit, "
            f"{changed} predictions change",
            next_step="use autoattack-reference with version: rand, and report the spread over several seeds",
        )


def _batch_dependent(model: Classifier, batch: Batch, logits: Tensor) -> Iterator[Flag]:
    with torch.no_grad():
        alone = torch.cat([model(batch.images[i : i + 1]) for i in range(min(ALONE, len(batch)))])
    difference = _relative_difference(logits[: len(alone)], alone)
    if difference > LOGIT_TOLERANCE:
        yield Flag(
            code="batch-dependent-output",
            severity="error",
            evidence=f"logits of {len(alone)} images alone and in a batch of {len(batch)} differ by "
            f"{difference:.2g} of the largest logit",
            next_step="make predictions independent of the rest of the batch, such as batch norm in evaluation mode",
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
    if max(zero.values()) >= min(_enough(len(batch)), len(batch)):
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
    if max(standing[1] - standing[0], standing[2] - standing[1]) >= _enough(len(batch)):
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
    if standing >= min(_enough(len(batch)), len(batch)):
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
