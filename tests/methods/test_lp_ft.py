from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from robusteval.methods import erm, lp_ft
from robusteval.methods.base import TrainingRun
from robusteval.methods.linear_probe import Features, fit_probe
from robusteval.methods.trainer import train
from robusteval.methods.validation import clean_accuracy
from robusteval.models.classifier import Classifier
from robusteval.models.heads import features
from robusteval.schema.errors import UsageError
from robusteval.store.scratch import Scratch


class KilledError(Exception):
    """Ends a run from its progress callback."""


def settings(**changes):
    return lp_ft.Params(**{"epochs": 2, "batch_size": 16, "grid": 6, "select": "last", **changes})


def prepared(model, stripes, **changes):
    method = lp_ft.LinearProbeFineTune(settings(**changes))
    run = TrainingRun(model=model, train=stripes(), validation=stripes(20, 1), seed=0)
    method.prepare(run)
    return method, run


def fit(model, stripes, **changes):
    method = lp_ft.LinearProbeFineTune(settings(**changes))
    return train(method, model=model, train=stripes(), validation=stripes(20, 1), seed=0)


def test_logits_equal_the_regressions_decision_function(network, stripes):
    model = network(0).eval()
    data = [stripes(), stripes(20, 1)]
    sets = [
        Features(features(model, part.batch(slice(None)).images).detach().double().numpy(), part.labels.numpy())
        for part in data
    ]
    probe = fit_probe(*sets, classes=4, grid=np.geomspace(1e-7, 1e2, 6))
    _, run = prepared(network(0), stripes)
    logits = run.model.eval()(data[1].batch(slice(None)).images).detach().numpy()
    assert np.allclose(logits, sets[1].values @ probe.weight.T + probe.bias, atol=1e-4)
    assert run.diagnostics["probe_c"] == probe.c


def test_accuracy_before_fine_tuning_is_that_of_the_probe(network, stripes):
    _, run = prepared(network(0), stripes)
    assert clean_accuracy(run.model, run.validation) == run.diagnostics["probe_validation_accuracy"]


def test_a_vanishing_learning_rate_leaves_the_probe(network, stripes, weights_of):
    _, run = prepared(network(0), stripes)
    outcome = fit(network(0), stripes, lr=1e-30)
    ours, theirs = weights_of(run.model), weights_of(outcome.model)
    assert all(torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-25) for name in ours)


def test_without_probe_it_is_plain_fine_tuning(network, stripes, weights_of, same_bits):
    shared = {"epochs": 2, "batch_size": 16, "lr": 0.01, "weight_decay": 0.0, "schedule": "constant"}
    data = {"train": stripes(), "validation": stripes(20, 1), "seed": 0}
    plain = train(erm.Erm(erm.Params(**shared)), model=network(0), **data)
    params = lp_ft.Params(**shared, grid=0, batch_norm="train", select="last")
    ours = train(lp_ft.LinearProbeFineTune(params), model=network(0), **data)
    assert same_bits(weights_of(plain.model), weights_of(ours.model))
    assert lp_ft.LinearProbeFineTune.passes(params) == (1.0, 1.0)


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_frozen_batch_norm_keeps_the_pretrained_statistics(network, stripes, batch_norm):
    model = network(0)
    before = model.network[1].running_mean.clone()
    outcome = fit(model, stripes, batch_norm=batch_norm)
    assert torch.equal(outcome.model.network[1].running_mean, before) == (batch_norm == "frozen")


def test_preparing_moves_no_batch_norm_statistic_and_only_the_head(network, stripes, weights_of):
    model = network(0).train()
    before = weights_of(model)
    prepared(model, stripes)
    after = weights_of(model)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "network.6.weight",
        "network.6.bias",
    }
    assert model.training


def test_a_head_of_another_size_is_replaced(network, stripes):
    model = network(0)
    model.network[6], model.classes = nn.Linear(128, 7), 7
    outcome = fit(model, stripes)
    assert outcome.model.classes == 4
    assert outcome.model.network[6].out_features == 4
    assert outcome.history[-1]["validation_accuracy"] > 0.5


def test_a_head_without_bias_is_refused(network, stripes):
    model = network(0)
    model.network[6] = nn.Linear(128, 4, bias=False)
    with pytest.raises(UsageError, match="head '6' has no bias"):
        prepared(model, stripes)


def test_the_cosine_is_stepped_once_an_epoch():
    method = lp_ft.LinearProbeFineTune(settings(epochs=4, lr=1.0))
    rates = [method.learning_rate(step / 12) for step in range(1, 13)]
    assert rates == pytest.approx(np.repeat([(1 + np.cos(np.pi * t / 4)) / 2 for t in range(4)], 3).tolist())
    assert lp_ft.LinearProbeFineTune(settings(schedule="constant")).learning_rate(0.5) is None


def test_features_of_validation_data_are_booked_as_selection(network, stripes):
    _, run = prepared(network(0), stripes)
    assert (run.model.passes.forward, run.selection.forward) == (60, 20)
    assert run.selected_on == "validation"


def test_the_probe_is_not_fitted_again_after_a_kill(network, stripes, tmp_path, weights_of, same_bits):
    data = {"train": stripes(), "validation": stripes(20, 1), "seed": 0}
    whole = train(lp_ft.LinearProbeFineTune(settings()), model=network(0), **data)

    def kill(fraction, what):
        if what.startswith("epoch 1/"):
            raise KilledError

    scratch = Scratch(tmp_path)
    with pytest.raises(KilledError):
        train(lp_ft.LinearProbeFineTune(settings()), model=network(0), scratch=scratch, progress=kill, **data)
    seen = []
    again = train(
        lp_ft.LinearProbeFineTune(settings()),
        model=network(0),
        scratch=scratch,
        progress=lambda fraction, what: seen.append(what),
        **data,
    )
    assert "linear probe" not in seen
    assert same_bits(weights_of(whole.model), weights_of(again.model))
    assert whole.diagnostics == again.diagnostics
    assert (whole.budget, whole.selection_budget) == (again.budget, again.selection_budget)


def linear_toy(lr, epochs):
    """Fine-tunes a two-layer linear network by plain gradient descent on inputs from a subspace."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64)).Q
    images = (torch.randn(32, 5, generator=generator, dtype=torch.float64) @ basis[:, :5].T).view(32, 3, 2, 2)
    labels = torch.randint(3, (32,), generator=generator)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4, bias=False), nn.Linear(4, 3)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    model = Classifier(network, classes=3, input_shape=(3, 2, 2), mean=(0.0,) * 3, std=(1.0,) * 3).double()
    method = lp_ft.LinearProbeFineTune(settings())
    run = TrainingRun(model=model, train=None, validation=None, seed=0)
    run.optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    before = [network[1].weight.detach().clone(), network[2].weight.detach().clone()]
    batch = lp_ft.Batch(images=images, labels=labels, keys=labels, domains=labels)
    for _ in range(epochs):
        method.step(run, batch)
    return basis[:, 5:], before, [network[1].weight.detach(), network[2].weight.detach()]


def test_features_of_directions_orthogonal_to_the_data_never_change():
    orthogonal, before, after = linear_toy(lr=0.1, epochs=50)
    assert (after[0] - before[0]).norm() > 0.1
    assert torch.allclose(after[0] @ orthogonal, before[0] @ orthogonal, atol=1e-7)


def test_the_balance_of_both_layers_is_conserved_to_first_order():
    def drift(lr, epochs):
        _, (b0, v0), (b1, v1) = linear_toy(lr, epochs)
        return ((v1.T @ v1 - b1 @ b1.T) - (v0.T @ v0 - b0 @ b0.T)).norm().item()

    coarse, fine = drift(0.1, 50), drift(0.01, 500)
    assert fine < 0.15 * coarse
    assert fine < 1e-2


def test_features_move_less_than_with_a_random_head(stripes, network):
    def movement(grid):
        model = network(0)
        images = stripes(40, 5).batch(slice(None)).images
        before = features(model.eval(), images).detach()
        model.network[6], model.classes = nn.Linear(128, 7), 7
        outcome = fit(model, stripes, grid=grid, lr=0.01, epochs=4)
        return (features(outcome.model, images).detach() - before).square().mean().item()

    assert movement(6) < 0.2 * movement(0)
