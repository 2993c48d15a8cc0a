from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from robusteval.attacks.base import build_attack
from robusteval.evaluators import clerk
from robusteval.evaluators.adversarial import AdversarialEvaluator, AdversarialParams
from robusteval.evaluators.adversarial_report import SecondStage
from robusteval.evaluators.base import EvaluationContext
from robusteval.schema.errors import UsageError
from robusteval.schema.params import checked_params
from robusteval.schema.types import Component, Epsilon, ThreatModel
from robusteval.stats.intervals import clopper_pearson
from robusteval.store.scratch import Scratch

THREAT = ThreatModel(epsilon=Epsilon("0.05"))
SHORT = {"version": "custom", "attacks": ["apgd-dlr", "square", "fab-t"], "steps": 1, "queries": 30, "restarts": 1}
FIRST, SECOND = "autoattack/apgd-dlr", ("autoattack/square", "autoattack/fab-t")


def two_stage(share):
    return {"name": "autoattack", "params": {**SHORT, "mode": "two-stage", "share": share}}


def evaluate(task, attack, data=None, **context):
    params = AdversarialParams.model_validate({"attacks": [attack], "checks": False})
    evaluator = AdversarialEvaluator(params)
    return evaluator.evaluate(task.model, data or task.data, EvaluationContext(threat=THREAT, **context))


@pytest.fixture(scope="module")
def full(task):
    return evaluate(task, {"name": "autoattack", "params": SHORT})


@pytest.fixture(scope="module")
def half(task):
    return evaluate(task, two_stage(0.5))


def bits(evaluation):
    return {name: np.array(outcome.unpack()) for name, outcome in evaluation.outcomes.items()}


def metrics(evaluation):
    return {metric.name: metric for metric in evaluation.metrics}


def test_the_second_stage_looks_at_a_part_of_the_survivors_with_the_verdicts_of_the_full_attack(full, half) -> None:
    whole, part = bits(full), bits(half)
    attacked = part[f"attacked/{SECOND[0]}"]
    assert (part[FIRST] == whole[FIRST]).all()
    assert 0 < attacked.sum() < part[FIRST].sum()
    assert (attacked <= part[FIRST]).all()
    for label in SECOND:
        looked = attacked | ~part[FIRST]
        assert (part[label][looked] == whole[label][looked]).all()
        assert part[label][~looked].all()
    assert (part[f"attacked/{SECOND[1]}"] == attacked & part[SECOND[0]]).all()
    assert part["robust"].sum() > whole["robust"].sum()


def test_its_numbers_are_functions_of_the_outcomes_and_enclose_the_full_attack(full, half) -> None:
    found, named = bits(half), metrics(half)
    attacked = found[f"attacked/{SECOND[0]}"]
    broken = int((attacked & ~found["robust"]).sum())
    assert broken > 0
    checked = named["second_stage_broken"]
    assert (checked.value, checked.n) == (broken / attacked.sum(), attacked.sum())
    assert (checked.low, checked.high) == clopper_pearson(broken, int(attacked.sum()))
    estimate = named["robust_accuracy_estimate"]
    unchecked = int((found["robust"] & ~attacked).sum())
    assert estimate.value == pytest.approx((found["robust"].sum() - unchecked * checked.value) / 90)
    assert named["robust_accuracy"].value == found["robust"].mean() == estimate.high
    assert named["robust_accuracy_low"].value == estimate.low
    assert estimate.low <= metrics(full)["robust_accuracy"].value <= estimate.high
    assert [flag.code for flag in half.flags if flag.code == "two-stage"]
    assert f"{attacked.sum()} of {found[FIRST].sum()} survivors" in half.flags[-1].evidence


def test_a_smaller_share_looks_at_a_part_of_what_a_larger_one_looks_at(task, half) -> None:
    fifth = bits(evaluate(task, two_stage(0.2)))
    attacked = fifth[f"attacked/{SECOND[0]}"]
    assert 0 < attacked.sum() < bits(half)[f"attacked/{SECOND[0]}"].sum()
    assert (attacked <= bits(half)[f"attacked/{SECOND[0]}"]).all()


def test_the_sample_depends_on_neither_order_nor_batch_size_but_on_the_seed(task, half) -> None:
    order = np.random.default_rng(0).permutation(90)
    shuffled = bits(evaluate(task, two_stage(0.5), task.data.take(order), batch_size=7))
    assert all((shuffled[name] == outcome[order]).all() for name, outcome in bits(half).items())
    other = bits(evaluate(task, two_stage(0.5), seed=1))
    assert (other[f"attacked/{SECOND[0]}"] != bits(half)[f"attacked/{SECOND[0]}"]).any()


def test_an_interrupted_two_stage_attack_resumes_to_the_same_result(task, half, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(clerk, "VERDICTS", 5)
    left, found, kills = 8, None, 0

    def progress(fraction: float, what: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    while found is None:
        try:
            found = evaluate(task, two_stage(0.5), scratch=Scratch(tmp_path), progress=progress)
        except KeyboardInterrupt:
            kills, left = kills + 1, 8
    assert kills > 1
    assert (found.outcomes, found.metrics, found.flags) == (half.outcomes, half.metrics, half.flags)


def test_a_direct_call_draws_the_same_sample(task, half) -> None:
    attack = build_attack(Component.model_validate(two_stage(0.5)), THREAT)
    images = task.data.images.astype(np.float32) / 255
    result = attack(
        task.model,
        torch.from_numpy(images),
        torch.from_numpy(task.data.labels),
        keys=torch.from_numpy(task.data.keys),
        seed=0,
    )
    assert (~result.broken.numpy() == bits(half)["robust"]).all()


def test_gate_is_a_cheap_upper_bound_that_says_so(task) -> None:
    gate = evaluate(task, {"name": "autoattack", "params": {"mode": "gate"}})
    assert list(gate.outcomes) == ["clean", "autoattack/apgd-ce", "autoattack/apgd-t", "robust"]
    assert gate.spec == "aa-gate(targets=5)@linf-0.05@n90@seed0@engine1"
    assert [flag.code for flag in gate.flags] == ["gate"]
    forward, backward = AdversarialEvaluator.passes(
        AdversarialParams.model_validate({"attacks": [{"name": "autoattack", "params": {"mode": "gate"}}]}), 10
    )
    assert forward < 7857 / 50
    assert backward < 1910 / 15


def test_nothing_checked_and_everything_checked_are_the_ends() -> None:
    nothing = SecondStage(survivors=30, checked=0, broken=0, unchecked=30, robust=30, n=50)
    assert [(metric.name, metric.value) for metric in nothing.metrics()] == [("robust_accuracy_low", 0.0)]
    everything = replace(nothing, checked=30, broken=4, unchecked=0, robust=26)
    assert {metric.name: metric.value for metric in everything.metrics()} == {
        "robust_accuracy_low": 26 / 50,
        "robust_accuracy_estimate": 26 / 50,
        "second_stage_broken": 4 / 30,
    }


def test_two_samples_in_one_evaluation_are_refused() -> None:
    with pytest.raises(UsageError, match="keep one"):
        checked_params("evaluator 'adversarial'", AdversarialParams, {"attacks": [two_stage(0.1), two_stage(0.2)]})
