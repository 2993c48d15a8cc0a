from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robusteval.methods import erm, rift
from robusteval.methods.base import TrainingRun
from robusteval.methods.trainer import train
from robusteval.schema.errors import UsageError
from robusteval.store.scratch import Scratch


class KilledError(Exception):
    """Ends a run from its progress callback."""


@pytest.fixture
def started(network, stripes):
    """Builds a model that is trained a little, so that there is robustness to lose."""

    def build(seed=0):
        model = network(seed)
        train(
            erm.Erm(erm.Params(epochs=3, batch_size=16, lr=0.02)),
            model=model,
            train=stripes(),
            validation=stripes(20, 1),
            seed=0,
        )
        return model

    return build


def settings(**changes):
    defaults = {"epochs": 2, "batch_size": 16, "lr": 0.05, "criticality_epochs": 2, "criticality_examples": 24}
    return rift.Params(**{**defaults, "epsilon": "0.05", "step_size": "0.0125", "steps": 3, **changes})


def fit(model, stripes, method=None, **changes):
    return train(
        method or rift.Rift(settings(**changes)), model=model, train=stripes(), validation=stripes(40, 1), seed=2
    )


class Ended(rift.Rift):
    """Keeps both ends of the line, and stays at the given one."""

    stay = 1.0

    def finish(self, run):
        self.tuned = rift.copy_of(run.model)
        run.model.load_state_dict(rift.lerp_state(self.origin, self.tuned, self.stay))


def differing(first, second):
    return {name for name in first if not torch.equal(first[name], second[name])}


def test_the_least_critical_module_is_chosen_and_the_table_reported(started, stripes):
    outcome = fit(started(), stripes)
    table = outcome.diagnostics["criticality"]
    assert set(table) == {"0", "3", "6"}
    assert list(table.values()) == sorted(table.values())
    assert outcome.diagnostics["layer"] == next(iter(table))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"batch_norm": "frozen"}, {"network.3.weight"}),
        (
            {"batch_norm": "train"},
            {"network.3.weight", "network.1.running_mean", "network.1.running_var", "network.1.num_batches_tracked"},
        ),
        ({"batch_norm": "frozen", "faithful": True}, {"network.3.weight", "network.3.bias"}),
    ],
)
def test_one_weight_tensor_differs_and_in_drift_mode_the_batch_norm_buffers(
    started, stripes, weights_of, changes, names
):
    model = started()
    before = weights_of(model)
    outcome = fit(model, stripes, Ended(settings(layer="3", **changes)))
    assert differing(before, weights_of(outcome.model)) == names


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_the_ends_of_the_line_are_exact(started, stripes, weights_of, same_bits, end):
    model = started()
    before = weights_of(model)
    method = Ended(settings())
    method.stay = end
    outcome = fit(model, stripes, method)
    assert same_bits(weights_of(outcome.model), method.tuned if end else before)
    assert differing(before, method.tuned)


def test_a_robustness_that_no_other_point_reaches_leaves_the_start_bit_for_bit(started, stripes, weights_of, same_bits):
    class Fragile(rift.Rift):
        def _measure(self, run, a):
            return {"a": a, "clean_accuracy": a, "clean_loss": 1.0 - a, "robust_accuracy": 0.5 - a}

    model = started()
    before = weights_of(model)
    outcome = fit(model, stripes, Fragile(settings()))
    assert outcome.diagnostics["interpolation_a"] == 0.0
    assert same_bits(before, weights_of(outcome.model))


def test_the_curve_has_eleven_points_and_keeps_its_promise_on_validation_data(started, stripes):
    outcome = fit(started(), stripes)
    curve = outcome.diagnostics["interpolation"]
    assert [point["a"] for point in curve] == pytest.approx([step / 10 for step in range(11)])
    chosen = next(point for point in curve if point["a"] == outcome.diagnostics["interpolation_a"])
    assert chosen["robust_accuracy"] >= curve[0]["robust_accuracy"] - 0.001
    assert chosen["clean_accuracy"] >= curve[0]["clean_accuracy"]
    assert outcome.selected_on == "validation-robust"


points = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=11)


@given(points, st.sampled_from([0.0, 0.05, 0.1]))
def test_no_admissible_point_is_more_accurate_than_the_chosen_one(pairs, tolerance):
    curve = [
        {"a": step / (len(pairs) - 1), "clean_accuracy": clean / 20, "clean_loss": 1.0, "robust_accuracy": robust / 20}
        for step, (clean, robust) in enumerate(pairs)
    ]
    chosen = rift.choose(curve, tolerance)
    limit = pairs[0][1] - round(tolerance * 20)
    assert chosen["robust_accuracy"] * 20 >= limit - 1e-6
    assert all(clean / 20 <= chosen["clean_accuracy"] for clean, robust in pairs if robust >= limit)


@pytest.mark.parametrize(("losses", "a"), [((0.4, 0.3, 0.2), 1.0), ((0.4, 0.2, 0.2), 0.5)])
def test_ties_go_to_the_smaller_clean_loss_and_then_to_the_nearer_point(losses, a):
    curve = [
        {"a": step / 2, "clean_accuracy": 0.9, "clean_loss": loss, "robust_accuracy": 0.5}
        for step, loss in enumerate(losses)
    ]
    assert rift.choose(curve, 0.001)["a"] == a


def test_clean_scores_are_accuracy_and_mean_cross_entropy(network, stripes):
    model, data = network(0).train(), stripes(40)
    accuracy, loss = rift.clean_scores(model, data)
    logits = model.eval()(data.batch(slice(None)).images)
    assert accuracy == (logits.argmax(dim=1) == data.labels).float().mean().item()
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, data.labels).item(), rel=1e-6)


def test_interpolation_is_booked_as_selection_and_criticality_as_training(started, stripes):
    model = started()
    outcome = fit(model, stripes)
    attack, ascent, tuning = 24 * 3, 3 * 24 * 2, 2 * 40
    assert outcome.budget.backward == attack + ascent + tuning
    assert outcome.budget.forward == attack + 3 * 24 * (2 * 2 + 1) + tuning
    assert outcome.selection_budget.backward >= 11 * 40 * 10


def test_flags_are_as_before_and_a_given_layer_skips_criticality(started, stripes):
    model = started()
    next(model.parameters()).requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    outcome = fit(model, stripes, layer="6")
    assert [parameter.requires_grad for parameter in outcome.model.parameters()] == flags
    assert outcome.diagnostics["layer"] == "6"
    assert "criticality" not in outcome.diagnostics


def test_an_unknown_layer_is_named(network, stripes):
    with pytest.raises(UsageError, match=r"rift: params.layer: unknown module '9'; valid: 0, 3, 6"):
        fit(network(0), stripes, layer="9")


def test_the_learning_rate_drops_once_at_half():
    method = rift.Rift(settings(lr=0.1))
    assert [method.learning_rate(step / 10) for step in range(1, 11)] == [0.1] * 5 + [0.01] * 5
    assert rift.Rift(settings(schedule="cosine")).learning_rate(0.5) is None


def test_criticality_examples_are_the_same_whatever_their_order(stripes):
    data = stripes(40)
    chosen = {data.ids[position] for position in rift.criticality_positions(data, 10).tolist()}
    assert len(chosen) == 10
    data.ids = tuple(reversed(data.ids))
    assert {data.ids[position] for position in rift.criticality_positions(data, 10).tolist()} == chosen
    assert len(rift.criticality_positions(data, 1000)) == 40


def test_adversarial_examples_are_in_the_ball_and_leave_the_model_alone(started, stripes, weights_of, same_bits):
    model = started().train()
    before = weights_of(model)
    method = rift.Rift(settings())
    run = TrainingRun(model=model, train=stripes(), validation=stripes(), seed=0)
    images, labels = method.adversarial_examples(run)
    positions = rift.criticality_positions(run.train, 24)
    clean = run.train.batch(positions)
    assert torch.equal(labels, clean.labels)
    assert 0.04 < (images - clean.images).abs().max() <= 0.05 + 1e-6
    assert same_bits(before, weights_of(model))


@pytest.mark.parametrize("words", ["criticality of 3", "criticality of 6", "epoch 2/", "interpolation 0.5"])
def test_a_killed_run_resumes_to_the_same_result(started, stripes, tmp_path, weights_of, same_bits, words):
    start = started()
    data = {"train": stripes(), "validation": stripes(20, 1), "seed": 3}
    whole = train(rift.Rift(settings()), model=started(), **data)

    def kill(fraction, what):
        if what.startswith(words):
            raise KilledError

    scratch = Scratch(tmp_path)
    with pytest.raises(KilledError):
        train(rift.Rift(settings()), model=start, scratch=scratch, progress=kill, **data)
    again = train(rift.Rift(settings()), model=started(), scratch=scratch, **data)
    assert same_bits(weights_of(whole.model), weights_of(again.model))
    assert whole.diagnostics == again.diagnostics
    assert (whole.budget, whole.selection_budget) == (again.budget, again.selection_budget)
    assert whole.selected_epoch == again.selected_epoch
