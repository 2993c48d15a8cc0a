"""A gate: whether the robust accuracy reaches a threshold, decided on as few examples as the confidence allows.

Examples are attacked in the order of their keys, which are hashes of their ids, so any beginning of that order is a
random sample. The answer is about the robust accuracy of all examples under these attacks; it stands with the stated
confidence although most of them may not have been attacked. It is no robust accuracy to compare with others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from robusteval.data.imageset import ImageSet
from robusteval.evaluators.adversarial import AdversarialEvaluator, AdversarialParams
from robusteval.evaluators.base import EvaluationContext
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import UsageError
from robusteval.schema.records import Budget
from robusteval.stats.sequential import Decision, decided, limits, looks


@dataclass(frozen=True)
class GateResult:
    """What a gate decided.

    Attributes:
        decision: whether the robust accuracy reaches the threshold.
        threshold: what was asked about.
        confidence: probability that the decision is right, at least.
        n: all examples.
        attacked: examples of them that were looked at.
        robust: examples of those that stood.
        low: the robust accuracy of all `n` examples is not below this, with the confidence of one look.
        high: it is not above this.
        budget: passes spent.
        ids: the examples that were looked at, in that order.
        stands: which of them stood.
    """

    decision: Decision
    threshold: float
    confidence: float
    n: int
    attacked: int
    robust: int
    low: float
    high: float
    budget: Budget
    ids: tuple[str, ...]
    stands: tuple[bool, ...]

    def __str__(self) -> str:
        word = ">=" if self.decision == "reached" else "<"
        return (
            f"robust accuracy {word} {100 * self.threshold:g} % at {100 * self.confidence:g} % confidence: "
            f"{self.robust} of {self.attacked} attacked examples stand ({self.n} in all)"
        )


def run_gate(
    model: Classifier,
    data: ImageSet,
    context: EvaluationContext,
    params: AdversarialParams,
    *,
    threshold: float,
    confidence: float = 0.95,
) -> GateResult:
    """Attack examples until it is decided whether the robust accuracy is at least `threshold`.

    Args:
        model: the classifier.
        data: all examples that the question is about.
        context: threat model, seed and batch size; scratch space is not used.
        params: the attacks, such as `autoattack` with `mode: gate`.
        threshold: robust accuracy that is asked about, in [0, 1].
        confidence: probability that the decision is right, at least.

    Raises:
        UsageError: no threat model, or a threshold, a confidence or an attack that cannot be used here.
        CellError: the data does not fit, or the model or an attack broke its contract.
    """
    _check(params, threshold, confidence)
    order, n = np.argsort(data.keys, kind="stable"), len(data)
    stands: list[bool] = []
    budget = Budget()
    planned = looks(max(1, n))
    decision: Decision | None = None
    evaluator = AdversarialEvaluator(params.model_copy(update={"checks": False, "keep": "none"}))
    for upto in planned:
        where = order[len(stands) : upto]
        start = len(stands) / max(1, n)
        found = evaluator.evaluate(model, data.take(where), _part(context, start, len(where) / max(1, n)))
        stands += found.outcomes["robust"].unpack()
        budget = Budget(forward=budget.forward + found.budget.forward, backward=budget.backward + found.budget.backward)
        decision = decided(sum(stands), upto, n, threshold, confidence=confidence, at_most=len(planned))
        if decision is not None:
            break
    assert decision is not None, "the last look sees everything"
    least, most = limits(sum(stands), len(stands), n, 1.0 - (1.0 - confidence) / len(planned))
    return GateResult(
        decision=decision,
        threshold=threshold,
        confidence=confidence,
        n=n,
        attacked=len(stands),
        robust=sum(stands),
        low=least / n,
        high=most / n,
        budget=budget,
        ids=tuple(data.ids[place] for place in order[: len(stands)]),
        stands=tuple(stands),
    )


def _part(context: EvaluationContext, start: float, share: float) -> EvaluationContext:
    """The context of one look, whose progress is a share of the whole."""
    return replace(
        context, scratch=None, progress=lambda fraction, what: context.progress(start + share * fraction, what)
    )


def _check(params: AdversarialParams, threshold: float, confidence: float) -> None:
    if not 0.0 <= threshold <= 1.0:
        raise UsageError(f"the threshold {threshold} is no robust accuracy; give a share in [0, 1]")
    if not 0.5 <= confidence < 1.0:
        raise UsageError(f"the confidence {confidence} is not in [0.5, 1); 0.95 is usual")
    names: Sequence[str] = [
        component.name for component in params.attacks if component.params.get("mode") == "two-stage"
    ]
    if names:
        raise UsageError("a gate counts the examples that stand, and mode: two-stage leaves some of them open")
