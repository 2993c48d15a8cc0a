from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from robusteval.methods import erm, pgd_at
from robusteval.methods.trainer import train
from robusteval.methods.validation import robust_accuracy
from robusteval.schema.types import Norm

SHARED = {"epochs": 2, "batch_size": 16, "lr": 0.05}


def perturbation(network, stripes, **params):
    method = pgd_at.PgdTraining(pgd_at.Params(**params))
    batch = stripes(48).batch(slice(None))
    torch.manual_seed(0)
    worst = method.worst_case(network(0).train(), batch)
    assert worst.min() >= 0.0
    assert worst.max() <= 1.0
    assert not worst.requires_grad
    return worst - batch.images


@pytest.mark.parametrize("init", ["rand", "zero", "nfgsm", "gauss"])
@pytest.mark.parametrize("steps", [1, 4])
def test_worst_cases_stay_in_the_linf_ball_and_in_the_box(network, stripes, init, steps):
    delta = perturbation(network, stripes, epsilon="0.1", step_size="0.06", steps=steps, init=init)
    assert delta.abs().max() <= 0.1 + 1e-7
    assert delta.abs().max() > 0.05


@pytest.mark.parametrize("init", ["rand", "zero", "gauss"])
def test_worst_cases_stay_in_the_l2_ball(network, stripes, init):
    delta = perturbation(network, stripes, norm="l2", epsilon="0.5", step_size="0.2", steps=4, init=init)
    lengths = delta.flatten(1).norm(dim=1)
    assert lengths.max() <= 0.5 + 1e-6
    assert lengths.max() > 0.4


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", "0.1"), ("l2", "0.5")])
def test_without_steps_it_trains_on_random_noise(network, stripes, norm, epsilon):
    delta = perturbation(network, stripes, norm=norm, epsilon=epsilon, steps=0)
    size = delta.abs().max() if norm == "linf" else delta.flatten(1).norm(dim=1).max()
    assert 0.0 < size <= float(epsilon) + 1e-6
    inside = delta[(delta.abs() > 0)]
    assert abs(inside.mean()) < 0.1 * inside.std()


@pytest.mark.parametrize("steps", [1, 3])
def test_steps_inside_the_ball_have_their_length(network, stripes, steps):
    delta = perturbation(network, stripes, epsilon="0.1", step_size="0.02", steps=steps, init="zero")
    assert delta.abs().max().item() == pytest.approx(0.02 * steps, abs=1e-6)


def test_without_projection_the_noise_of_nfgsm_leaves_the_ball(network, stripes):
    delta = perturbation(network, stripes, epsilon="0.1", step_size="0.1", steps=1, init="nfgsm", project=False)
    assert 0.1 + 1e-3 < delta.abs().max() <= 0.3 + 1e-6


@pytest.mark.parametrize(
    ("batch_norm", "attack_bn"), [(False, "train"), (True, "eval")], ids=["without batch norm", "crafted in eval mode"]
)
def test_with_radius_zero_it_is_erm_bit_for_bit(network, stripes, weights_of, same_bits, batch_norm, attack_bn):
    data = {"train": stripes(), "validation": stripes(20, 1), "seed": 4}
    plain = train(erm.Erm(erm.Params(**SHARED)), model=network(0, batch_norm=batch_norm), **data)
    method = pgd_at.PgdTraining(pgd_at.Params(epsilon=0, steps=2, attack_bn=attack_bn, **SHARED))
    robust = train(method, model=network(0, batch_norm=batch_norm), **data)
    assert same_bits(weights_of(plain.model), weights_of(robust.model))


@pytest.mark.parametrize(("attack_bn", "expected"), [("train", 4), ("eval", 1)])
def test_batches_that_batch_norm_counts_in_one_step(network, stripes, attack_bn, expected):
    model = network(0).train()
    method = pgd_at.PgdTraining(pgd_at.Params(steps=3, attack_bn=attack_bn))
    method.loss(model, stripes().batch(slice(None)))
    assert int(model.network[1].num_batches_tracked) == expected
    assert model.network[1].training


def test_crafting_leaves_no_parameter_gradients(network, stripes):
    model = network(0).train()
    pgd_at.PgdTraining(pgd_at.Params(steps=2)).worst_case(model, stripes().batch(slice(None)))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_it_gains_robust_accuracy_over_erm(network, stripes):
    data = {"train": stripes(160), "validation": stripes(100, 1), "seed": 0}
    params = {"epochs": 8, "batch_size": 32, "lr": 0.05}
    threat = {"norm": Norm.LINF, "epsilon": 0.15, "seed": 0}
    plain = train(erm.Erm(erm.Params(**params)), model=network(0), **data)
    method = pgd_at.PgdTraining(pgd_at.Params(epsilon="0.15", step_size="0.05", steps=4, **params))
    robust = train(method, model=network(0), **data)
    before = robust_accuracy(plain.model, data["validation"], **threat)
    after = robust.history[-1]["validation_robust_accuracy"]
    assert after == robust_accuracy(robust.model, data["validation"], **threat)
    assert after > before + 0.2
    assert "validation_robust_accuracy" not in robust.history[0]


def test_the_passes_of_the_estimate_are_those_counted(network, stripes):
    params = pgd_at.Params(steps=3, epochs=2, batch_size=20)
    outcome = train(pgd_at.PgdTraining(params), model=network(0), train=stripes(40), validation=stripes(20, 1), seed=0)
    forward, backward = pgd_at.PgdTraining.passes(params)
    assert outcome.budget.forward == forward * 40 * 2
    assert outcome.budget.backward == backward * 40 * 2


@pytest.mark.parametrize(
    "wrong", [{"epsilon": "8/0"}, {"epsilon": -1}, {"norm": "l1"}, {"steps": -1}, {"norm": "l2", "init": "nfgsm"}]
)
def test_bad_parameters_are_refused(wrong):
    with pytest.raises(ValidationError):
        pgd_at.Params(**wrong)
