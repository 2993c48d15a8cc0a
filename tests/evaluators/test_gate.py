from __future__ import annotations

import numpy as np
import pytest

from robusteval.evaluators.adversarial import AdversarialEvaluator, AdversarialParams
from robusteval.evaluators.base import EvaluationContext
from robusteval.evaluators.gate import run_gate
from robusteval.schema.errors import UsageError
from robusteval.schema.types import Epsilon, ThreatModel

CONTEXT = EvaluationContext(threat=ThreatModel(epsilon=Epsilon("0.03")))
GATE = AdversarialParams.model_validate({"attacks": [{"name": "autoattack", "params": {"mode": "gate"}}]})


@pytest.fixture(scope="module")
def full(task):
    return AdversarialEvaluator(GATE.model_copy(update={"checks": False})).evaluate(task.model, task.data, CONTEXT)


def test_a_far_threshold_is_decided_early_with_the_verdicts_of_the_whole_evaluation(task, full) -> None:
    before = task.model.passes.snapshot()
    result = run_gate(task.model, task.data, CONTEXT, GATE, threshold=0.25)
    assert (result.decision, result.n) == ("reached", 90)
    assert result.attacked < 90
    assert result.budget == task.model.passes.since(before)
    assert result.budget.forward < full.budget.forward
    robust = dict(zip(task.data.ids, full.outcomes["robust"].unpack(), strict=True))
    assert result.stands == tuple(robust[name] for name in result.ids)
    assert result.low <= np.mean(list(robust.values())) <= result.high
    assert str(result).startswith("robust accuracy >= 25 % at 95 % confidence: ")
    assert run_gate(task.model, task.data, CONTEXT, GATE, threshold=0.95).decision == "missed"


def test_a_near_threshold_takes_every_example_and_is_exact(task, full) -> None:
    robust = sum(full.outcomes["robust"].unpack())
    for threshold, decision in ((robust / 90, "reached"), ((robust + 1) / 90, "missed")):
        result = run_gate(task.model, task.data, CONTEXT, GATE, threshold=threshold)
        assert (result.decision, result.attacked, result.robust) == (decision, 90, robust)
        assert result.low == result.high == robust / 90


def test_the_order_of_the_data_changes_nothing(task) -> None:
    shuffled = task.data.take(np.random.default_rng(0).permutation(90))
    assert run_gate(task.model, shuffled, CONTEXT, GATE, threshold=0.3) == run_gate(
        task.model, task.data, CONTEXT, GATE, threshold=0.3
    )


def test_progress_never_goes_back(task) -> None:
    seen: list[float] = []
    context = EvaluationContext(threat=CONTEXT.threat, progress=lambda fraction, what: seen.append(fraction))
    run_gate(task.model, task.data, context, GATE, threshold=0.6)
    assert seen == sorted(seen)
    assert 0 < seen[-1] <= 1


@pytest.mark.parametrize(
    ("attacks", "threshold", "confidence", "words"),
    [
        (["fgsm"], 1.5, 0.95, "threshold 1.5"),
        (["fgsm"], 0.5, 1.0, "confidence 1.0"),
        ([{"name": "autoattack", "params": {"mode": "two-stage"}}], 0.5, 0.95, "leaves some of them open"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(attacks, threshold, confidence, words, task) -> None:
    params = AdversarialParams.model_validate({"attacks": attacks})
    with pytest.raises(UsageError, match=words):
        run_gate(task.model, task.data, CONTEXT, params, threshold=threshold, confidence=confidence)
