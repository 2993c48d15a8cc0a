from __future__ import annotations

import itertools
import json

import numpy as np
import pyautoattack
import pyautoattack.autoattack
import pytest
import safetensors.numpy
import torch

from robusteval.attacks.bridging import PlainModule
from robusteval.evaluators import clerk, details
from robusteval.evaluators.adversarial import AdversarialEvaluator, AdversarialParams
from robusteval.evaluators.base import EvaluationContext
from robusteval.schema.errors import CorruptRecordError, UnknownNameError, UsageError
from robusteval.schema.types import Epsilon, Norm, ThreatModel
from robusteval.store.scratch import Scratch

THREAT = ThreatModel(norm=Norm.LINF, epsilon=Epsilon("0.03"))
FAST_AA = {
    "name": "autoattack-reference",
    "params": {
        "version": "custom",
        "attacks": ["apgd-ce", "fab-t", "square"],
        "steps": 8,
        "queries": 40,
        "restarts": 1,
        "chunk": 20,
    },
}
PGD = {"name": "pgd", "params": {"steps": 4}}
FOREIGN = {"name": "torchattacks/PGD", "params": {"chunk": 16}}
ATTACKS = ["fgsm", PGD, FOREIGN, FAST_AA]
LABELS = [
    "fgsm",
    "pgd",
    "torchattacks/PGD",
    "autoattack-reference/apgd-ce",
    "autoattack-reference/fab-t",
    "autoattack-reference/square",
]


def evaluate(task, data=None, attacks=ATTACKS, threat=THREAT, cascade=True, checks=False, **context):
    params = AdversarialParams.model_validate({"attacks": attacks, "cascade": cascade, "checks": checks})
    return AdversarialEvaluator(params).evaluate(
        task.model, task.data if data is None else data, EvaluationContext(threat=threat, **context)
    )


@pytest.fixture(scope="module")
def reference(task):
    return evaluate(task)


def bits(evaluation) -> dict[str, np.ndarray]:
    return {name: np.array(outcome.unpack()) for name, outcome in evaluation.outcomes.items()}


def values(evaluation) -> dict[str, float]:
    return {metric.name: metric.value for metric in evaluation.metrics}


def test_outcomes_fall_from_clean_over_each_attack_to_robust(reference) -> None:
    found = bits(reference)
    assert list(found) == ["clean", *LABELS, "robust"]
    order = list(found.values())
    assert all((later <= earlier).all() for earlier, later in itertools.pairwise(order))
    assert (found["robust"] == found[LABELS[-1]]).all()
    assert 5 < found["robust"].sum() < found["clean"].sum() - 5
    assert not found["clean"].all()


def test_metrics_are_functions_of_the_outcomes(reference) -> None:
    found, metrics = bits(reference), values(reference)
    assert metrics["robust_accuracy"] == found["robust"].mean()
    assert metrics["robust_accuracy/plain"] == found["robust"][:50].mean()
    assert metrics["robust_accuracy/dimmed"] == found["robust"][50:].mean()
    assert metrics["robust_accuracy_worst"] == min(found["robust"][:50].mean(), found["robust"][50:].mean())
    assert metrics["robust_accuracy_macro"] == pytest.approx(
        (metrics["robust_accuracy/plain"] + metrics["robust_accuracy/dimmed"]) / 2
    )
    assert metrics["accuracy"] == found["clean"].mean()
    assert [name for name in metrics if name.startswith("accuracy_after/")] == [f"accuracy_after/{x}" for x in LABELS]
    for label in LABELS:
        assert metrics[f"accuracy_after/{label}"] == found[label].mean()
    robust = next(metric for metric in reference.metrics if metric.name == "robust_accuracy")
    assert (robust.n, robust.interval) == (90, "wilson")


def test_the_budget_is_what_the_model_counted(task) -> None:
    before = task.model.passes.snapshot()
    evaluation = evaluate(task, attacks=[PGD], checks=True)
    assert task.model.passes.since(before) == evaluation.budget


@pytest.mark.parametrize("batch_size", [1, 7, 32, 128, 512])
def test_nothing_depends_on_batch_size_or_order(batch_size, task, reference) -> None:
    assert evaluate(task, batch_size=batch_size) == reference
    order = np.random.default_rng(batch_size).permutation(90)
    shuffled = evaluate(task, task.data.take(order), batch_size=batch_size)
    for name, expected in bits(reference).items():
        assert (bits(shuffled)[name] == expected[order]).all(), name
    assert values(shuffled) == values(reference)
    assert shuffled.budget == reference.budget


class KilledError(Exception):
    pass


@pytest.mark.parametrize("seed", range(4))
def test_an_interrupted_run_resumes_to_the_same_evaluation_and_budget(seed, task, reference, tmp_path) -> None:
    generator = np.random.default_rng(seed)
    expected = evaluate(task, checks=True) if seed == 0 else reference
    kills = 0
    for _ in range(60):
        left = int(generator.integers(1, 7))

        def progress(fraction: float, what: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KilledError

        try:
            found = evaluate(
                task,
                checks=seed == 0,
                scratch=Scratch(tmp_path / "scratch"),
                progress=progress,
                batch_size=int(generator.choice([7, 16, 40])),
            )
        except KilledError:
            kills += 1
            continue
        break
    assert kills >= 3
    assert found == expected


ENGINE_AA = {
    "name": "autoattack",
    "params": {
        "version": "custom",
        "attacks": ["apgd-ce", "fab-t", "square"],
        "steps": 6,
        "queries": 30,
        "restarts": 1,
    },
}


@pytest.fixture(scope="module")
def packed(task):
    return evaluate(task, attacks=[ENGINE_AA])


@pytest.mark.parametrize("batch_size", [1, 32, 128, 512])
def test_attacks_that_pack_their_batches_do_not_depend_on_batch_size_or_order(batch_size, task, packed) -> None:
    assert evaluate(task, attacks=[ENGINE_AA], batch_size=batch_size) == packed
    order = np.random.default_rng(batch_size).permutation(90)
    shuffled = evaluate(task, task.data.take(order), attacks=[ENGINE_AA])
    for name, expected in bits(packed).items():
        assert (bits(shuffled)[name] == expected[order]).all(), name
    assert shuffled.budget == packed.budget


@pytest.mark.parametrize("seed", range(3))
def test_an_interrupted_packed_attack_resumes_to_the_same_outcomes_from_its_last_verdicts(
    seed, task, packed, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(clerk, "VERDICTS", 5)
    generator = np.random.default_rng(seed)
    found, kills, written = None, 0, []
    for _ in range(60):
        left = int(generator.integers(2, 9))

        def progress(fraction: float, what: str) -> None:
            nonlocal left
            left -= 1
            written.append(fraction)
            if left < 0:
                raise KilledError

        try:
            found = evaluate(task, attacks=[ENGINE_AA], scratch=Scratch(tmp_path), progress=progress)
        except KilledError:
            kills += 1
            continue
        break
    assert found is not None
    assert kills >= 3
    assert len(set(written)) > 10
    assert (found.outcomes, found.metrics, found.flags) == (packed.outcomes, packed.metrics, packed.flags)
    assert found.budget.backward >= packed.budget.backward * 0.9


def columns(folder):
    blob = Scratch(folder).get(details.BLOB)
    assert blob is not None
    return safetensors.numpy.load(blob), json.loads(details.read_metadata(blob)["stages"])


def test_the_details_say_of_every_example_what_each_attack_did(task, tmp_path) -> None:
    order = np.random.default_rng(0).permutation(90)
    data = task.data.take(order)
    evaluation = evaluate(task, data, attacks=["fgsm", ENGINE_AA], scratch=Scratch(tmp_path))
    found, (saved, stages) = bits(evaluation), columns(tmp_path)
    assert stages == [name for name in found if name not in ("clean", "robust")]
    assert ((saved["prediction"] == data.labels) == found["clean"]).all()
    before = found["clean"]
    for row, name in enumerate(stages):
        fell = before & ~found[name]
        assert (np.isfinite(saved["margin"][row]) == before).all()
        assert ((saved["margin"][row] <= 0) == fell).all()
        assert ((saved["norm"][row] > 0) == fell).all()
        assert saved["norm"][row][before].max() <= 0.03 + 1e-6
        if name != "fgsm":
            assert ((saved["run"][row] >= 0) == fell).all()
            assert ((saved["step"][row] > 0) == before).all()
            assert ((saved["forward"][row] > 0) == before).all()
        before = found[name]
    assert saved["forward"][saved["forward"] > 0].sum() < evaluation.budget.forward


def test_details_of_an_interrupted_run_are_complete(task, packed, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(clerk, "VERDICTS", 5)
    left = 12

    def progress(fraction: float, what: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KilledError

    with pytest.raises(KilledError):
        evaluate(task, attacks=[ENGINE_AA], scratch=Scratch(tmp_path / "killed"), progress=progress)
    evaluate(task, attacks=[ENGINE_AA], scratch=Scratch(tmp_path / "killed"))
    evaluate(task, attacks=[ENGINE_AA], scratch=Scratch(tmp_path / "whole"))
    resumed, whole = columns(tmp_path / "killed")[0], columns(tmp_path / "whole")[0]
    assert (resumed["prediction"] == whole["prediction"]).all()
    assert ((resumed["run"] >= 0) == (whole["run"] >= 0)).all()
    assert (np.isnan(resumed["margin"]) == np.isnan(whole["margin"])).all()


@pytest.mark.parametrize("damage", ["text", "empty", "another shape"])
def test_details_that_cannot_be_read_are_named_and_the_next_attempt_starts_without_them(
    damage, task, packed, tmp_path
) -> None:
    scratch = Scratch(tmp_path)
    evaluate(task, attacks=[ENGINE_AA], scratch=scratch)
    whole = columns(tmp_path)[0]
    metadata = details.read_metadata(scratch.get(details.BLOB))
    blobs = {
        "text": b"12345678{",
        "empty": b"",
        "another shape": safetensors.numpy.save({"run": np.zeros(3)}, metadata),
    }
    scratch.put(details.BLOB, blobs[damage])
    with pytest.raises(CorruptRecordError, match=f"{details.BLOB}.*--resume failed"):
        evaluate(task, attacks=[ENGINE_AA], scratch=scratch)
    assert evaluate(task, attacks=[ENGINE_AA], scratch=scratch) == packed
    again = columns(tmp_path)[0]
    assert all(np.array_equal(again[name], whole[name], equal_nan=True) for name in ("label", "prediction", "margin"))


def test_a_finished_journal_of_a_packed_attack_costs_no_pass(task, packed, tmp_path) -> None:
    assert evaluate(task, attacks=[ENGINE_AA], scratch=Scratch(tmp_path)) == packed
    before = task.model.passes.snapshot()
    assert evaluate(task, attacks=[ENGINE_AA], scratch=Scratch(tmp_path)) == packed
    assert task.model.passes.snapshot() == before


def test_the_budget_of_a_packed_attack_is_what_the_model_counted(task) -> None:
    before = task.model.passes.snapshot()
    evaluation = evaluate(task, attacks=[ENGINE_AA])
    assert task.model.passes.since(before) == evaluation.budget


def test_a_number_of_autoattack_carries_its_name(packed, reference) -> None:
    settings = "apgd-ce,fab-t,square;steps=6;queries=30;restarts=1;targets=5"
    assert packed.spec == f"aa-custom({settings})@linf-0.03@n90@seed0@engine1"
    assert reference.spec is not None
    assert reference.spec.endswith("@pyautoattack-0.2.0")
    assert list(packed.outcomes) == ["clean", *(f"autoattack/{m}" for m in ("apgd-ce", "fab-t", "square")), "robust"]


def test_a_journal_of_another_question_is_ignored(task, tmp_path) -> None:
    scratch = Scratch(tmp_path)
    evaluate(task, attacks=["fgsm"], scratch=scratch)
    stronger = THREAT.model_copy(update={"epsilon": Epsilon("0.08")})
    expected = evaluate(task, attacks=["fgsm"], threat=stronger)
    assert evaluate(task, attacks=["fgsm"], threat=stronger, scratch=scratch) == expected
    assert scratch.get_json("adversarial.json") is not None


def test_a_finished_journal_costs_no_pass(task, tmp_path) -> None:
    first = evaluate(task, attacks=[PGD], checks=True, scratch=Scratch(tmp_path))
    before = task.model.passes.snapshot()
    assert evaluate(task, attacks=[PGD], checks=True, scratch=Scratch(tmp_path)) == first
    assert task.model.passes.snapshot() == before


def test_without_the_cascade_every_attack_is_reported_by_itself(task) -> None:
    alone = evaluate(task, attacks=["fgsm", PGD], cascade=False)
    found = bits(alone)
    assert (found["fgsm"] == bits(evaluate(task, attacks=["fgsm"]))["fgsm"]).all()
    assert (found["pgd"] == bits(evaluate(task, attacks=[PGD]))["pgd"]).all()
    assert (found["robust"] == (found["fgsm"] & found["pgd"])).all()
    assert values(alone)["accuracy_under/fgsm"] == found["fgsm"].mean()
    cascaded = evaluate(task, attacks=["fgsm", PGD])
    assert (bits(cascaded)["robust"] == found["robust"]).all()
    assert cascaded.budget.forward < alone.budget.forward


def test_an_attack_listed_twice_gets_a_number(task) -> None:
    found = evaluate(task, attacks=["fgsm", "pgd", {"name": "pgd", "params": {"steps": 40}}])
    assert list(found.outcomes) == ["clean", "fgsm", "pgd", "pgd#2", "robust"]


def test_progress_ends_at_one_and_never_goes_back(task) -> None:
    seen: list[tuple[float, str]] = []
    evaluate(task, batch_size=16, progress=lambda fraction, what: seen.append((fraction, what)))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert {what for _, what in seen} >= {"clean", *LABELS}


def test_the_model_comes_back_in_the_mode_it_had(task) -> None:
    try:
        task.model.train()
        before = [buffer.clone() for buffer in task.model.buffers()]
        evaluate(task, attacks=["fgsm"], checks=True)
        assert task.model.training
        assert all(torch.equal(a, b) for a, b in zip(before, task.model.buffers(), strict=True))
    finally:
        task.model.eval()


@pytest.mark.parametrize(
    ("attacks", "threat", "error", "words"),
    [
        (["pgd"], None, UsageError, "needs a threat model"),
        (["pdg"], THREAT, UnknownNameError, "did you mean 'pgd'"),
        (["pgd"], ThreatModel(norm=Norm.L1, epsilon=Epsilon(1)), UsageError, "does not support the norm l1"),
        ([{"name": "pgd", "params": {"steps": -1}}], THREAT, UsageError, "steps"),
    ],
)
def test_a_wrong_question_fails_before_any_pass(attacks, threat, error, words, task) -> None:
    before = task.model.passes.snapshot()
    with pytest.raises(error, match=words):
        evaluate(task, attacks=attacks, threat=threat)
    assert task.model.passes.snapshot() == before


def test_the_plans_estimate_is_an_upper_bound(task, reference) -> None:
    params = AdversarialParams.model_validate({"attacks": ATTACKS})
    forward, backward = AdversarialEvaluator.passes(params, 6)
    attacks = len(LABELS)
    assert reference.budget.forward <= 90 * (forward + 2 * attacks)
    assert reference.budget.backward <= 90 * backward


def test_chunks_in_key_order_equal_the_librarys_driver_over_the_whole_set(task, monkeypatch) -> None:
    """Members are regrouped from all survivors after each one, as the library does."""
    found = bits(evaluate(task, attacks=[FAST_AA]))
    monkeypatch.setattr(pyautoattack.autoattack.checks, "check_dynamic", lambda *args, **kwargs: None)
    model, order = task.model, np.argsort(task.data.keys)
    right = order[found["clean"][order]]
    images = torch.from_numpy(task.data.images[right]).float() / 255
    labels = torch.from_numpy(task.data.labels[right])
    with torch.random.fork_rng(), model.parameters_frozen():
        members = FAST_AA["params"]["attacks"]
        driver = pyautoattack.AutoAttack(PlainModule(model), eps=0.03, seed=0, version="custom", attacks=members)
        driver.apgd.n_iter, driver.apgd.n_restarts, driver.apgd.n_iter_2 = 8, 1, 1
        driver.apgd.n_iter_min, driver.apgd.size_decr = 1, 1
        driver.fab.n_iter, driver.fab.n_target_classes, driver.square.n_queries = 8, 5, 40
        adversarial, _ = driver.run_standard_evaluation(images, labels, batch_size=20)
    stands = (model.predict(adversarial) == labels).numpy()
    assert 5 < stands.sum() < len(right) - 5
    assert (found["robust"][right] == stands).all()
