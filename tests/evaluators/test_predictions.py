from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robusteval.evaluators.base import EvaluationContext
from robusteval.evaluators.clean import CleanEvaluator, CleanParams
from robusteval.evaluators.predictions import accuracy_metric, calibration_error, domain_accuracies
from robusteval.evaluators.shift import ShiftEvaluator, ShiftParams
from robusteval.schema.errors import CellError
from robusteval.stats.intervals import wilson


def clean(task, **context):
    return CleanEvaluator(CleanParams()).evaluate(task.model, task.data, EvaluationContext(**context))


def metrics_of(evaluation):
    return {metric.name: metric for metric in evaluation.metrics}


def test_calibration_error_of_a_hand_worked_example() -> None:
    # Two bins of ten: (0.5, 0.6] holds .55 and .6 with one hit, (0.9, 1] holds .95 and 1 with both.
    confidence = np.array([0.55, 0.6, 0.95, 1.0])
    correct = np.array([True, False, True, True])
    expected = (abs(1 - 1.15) + abs(2 - 1.95)) / 4
    assert calibration_error(confidence, correct, bins=10) == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(0.01, 1), st.booleans()), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_calibration_error_agrees_with_a_loop_over_the_bins(pairs) -> None:
    confidence, correct = np.array([c for c, _ in pairs]), np.array([r for _, r in pairs])
    total = 0.0
    for index in range(15):
        low, high = index / 15, (index + 1) / 15
        inside = [(c, r) for c, r in pairs if math.ceil(c * 15) == index + 1 or (index == 14 and c * 15 > 15)]
        assert all(low - 1e-9 <= c <= high + 1e-9 for c, _ in inside)
        total += abs(sum(r for _, r in inside) - sum(c for c, _ in inside))
    assert calibration_error(confidence, correct) == pytest.approx(total / len(pairs))


def test_clean_metrics_follow_from_the_logits(task) -> None:
    evaluation = clean(task)
    images = task.data.images.astype(np.float32) / 255
    import torch

    with torch.no_grad():
        logits = task.model(torch.from_numpy(images)).double().numpy()
    shifted = logits - logits.max(axis=1, keepdims=True)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    right = logits.argmax(axis=1) == task.data.labels
    found = metrics_of(evaluation)
    assert found["accuracy"].value == right.mean()
    assert (found["accuracy"].low, found["accuracy"].high) == wilson(right.sum(), 90)
    assert found["nll"].value == pytest.approx(-np.log(probabilities[np.arange(90), task.data.labels]).mean())
    assert found["ece"].value == pytest.approx(calibration_error(probabilities.max(axis=1), right))
    assert not found["nll"].higher_is_better
    assert not found["ece"].higher_is_better
    assert evaluation.outcomes["clean"].unpack() == right.tolist()
    assert (evaluation.budget.forward, evaluation.budget.backward) == (90, 0)
    assert evaluation.domains == (("plain", 50), ("dimmed", 40))
    assert found["accuracy/dimmed"].value == right[50:].mean()
    assert found["ece/dimmed"].value == pytest.approx(calibration_error(probabilities.max(axis=1)[50:], right[50:]))
    assert found["ece/dimmed"].n == 40


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_nothing_depends_on_batch_size_or_order(batch_size, task) -> None:
    reference = clean(task)
    assert clean(task, batch_size=batch_size).model_dump(exclude={"budget"}) == reference.model_dump(exclude={"budget"})
    order = np.random.default_rng(batch_size).permutation(90)
    shuffled = CleanEvaluator(CleanParams()).evaluate(
        task.model, task.data.take(order), EvaluationContext(batch_size=batch_size)
    )
    flags = np.array(reference.outcomes["clean"].unpack())
    assert shuffled.outcomes["clean"].unpack() == flags[order].tolist()
    assert {m.name: m.value for m in shuffled.metrics} == {m.name: m.value for m in reference.metrics}


def test_shift_reports_every_domain_micro_macro_and_worst_by_name(task) -> None:
    evaluation = ShiftEvaluator(ShiftParams()).evaluate(task.model, task.data, EvaluationContext())
    right = np.array(evaluation.outcomes["clean"].unpack())
    plain, dimmed = right[:50].mean(), right[50:].mean()
    assert dimmed < plain
    found = metrics_of(evaluation)
    assert {found.pop(f"ece/{name}").n for name in ("plain", "dimmed")} == {50, 40}
    assert {name: metric.value for name, metric in found.items()} == {
        "accuracy": right.mean(),
        "accuracy/plain": plain,
        "accuracy/dimmed": dimmed,
        "accuracy_macro": pytest.approx((plain + dimmed) / 2),
        "accuracy_worst": dimmed,
        "accuracy_worst/dimmed": dimmed,
    }
    half = math.hypot(plain - found["accuracy/plain"].low, dimmed - found["accuracy/dimmed"].low) / 2
    assert found["accuracy_macro"].low == pytest.approx((plain + dimmed) / 2 - half)
    assert found["accuracy_worst"].n == 40


def test_shift_has_the_same_columns_for_a_single_domain(task) -> None:
    plain = task.data.take(range(50))
    found = metrics_of(ShiftEvaluator(ShiftParams()).evaluate(task.model, plain, EvaluationContext()))
    assert found.pop("ece/plain").n == 50
    assert set(found) == {"accuracy", "accuracy/plain", "accuracy_macro", "accuracy_worst", "accuracy_worst/plain"}
    assert len({metric.value for metric in found.values()}) == 1


def test_perfect_and_hopeless_accuracies_keep_their_intervals_in_range(task) -> None:
    for outcome in (True, False):
        for metric in domain_accuracies("x", [outcome] * 90, task.data):
            assert 0 <= metric.low <= metric.value <= metric.high <= 1
    assert accuracy_metric("x", [True] * 10).low < 1


@pytest.mark.parametrize("change", ["empty", "shape", "label"])
def test_data_that_does_not_fit_the_model_is_a_named_error(change, task) -> None:
    data = task.data
    if change == "empty":
        data = data.take([])
    elif change == "shape":
        data = data.take(range(4))
        object.__setattr__(data, "images", data.images[:, :, :8])
    else:
        data = data.take(range(4))
        object.__setattr__(data, "labels", data.labels + 6)
    words = {"empty": "no examples", "shape": "the model takes", "label": "only 6 classes"}[change]
    with pytest.raises(CellError, match=words):
        CleanEvaluator(CleanParams()).evaluate(task.model, data, EvaluationContext())


def test_progress_ends_at_one_and_never_goes_back(task) -> None:
    seen: list[float] = []
    clean(task, batch_size=16, progress=lambda fraction, what: seen.append(fraction))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) == 6
