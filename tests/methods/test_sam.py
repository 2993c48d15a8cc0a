from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from robusteval.methods import erm, sam
from robusteval.methods.base import TrainingRun
from robusteval.methods.trainer import train


class Bowl(sam.Sam):
    """SAM on L(w) = 0.5 * w^T diag(1, 4) w, with the gradient that reaches the base optimiser kept."""

    def loss(self, model, batch):
        return 0.5 * (torch.tensor([1.0, 4.0]) * model.weight.square()).sum()


class Point(nn.Module):
    def __init__(self, *weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))


def gradient_used(params, *weight):
    point = Point(*weight)
    run = TrainingRun(model=point, train=None, validation=None, seed=0)
    run.optimizer = torch.optim.SGD([point.weight], lr=1.0)
    Bowl(params).step(run, None)
    return torch.tensor(weight) - point.weight.detach()


@pytest.mark.parametrize(
    ("weight", "params", "offset", "gradient"),
    [
        ((1.0, 1.0), sam.Params(rho=0.05), (0.012127, 0.048507), (1.012127, 4.194029)),
        ((2.0, -0.5), sam.Params(rho=0.5, adaptive=True), (0.970143, -0.060634), (2.970143, -2.242536)),
    ],
    ids=["sam", "asam"],
)
def test_known_answers_on_a_quadratic(weight, params, offset, gradient):
    w = torch.tensor(weight)
    g = torch.tensor([1.0, 4.0]) * w
    (found,) = sam.sharpness_ascent([w], [g], rho=params.rho, adaptive=params.adaptive)
    assert found.tolist() == pytest.approx(offset, abs=1e-6)
    assert gradient_used(params, *weight).tolist() == pytest.approx(gradient, abs=1e-5)


def test_the_norm_is_taken_over_all_tensors_at_once():
    offsets = sam.sharpness_ascent([torch.ones(1), torch.ones(1)], [torch.tensor([3.0]), torch.tensor([4.0])], rho=1.0)
    assert [part.item() for part in offsets] == pytest.approx([0.6, 0.8])


def test_moved_weights_come_back_bit_for_bit_even_after_an_error():
    w = torch.rand(50, generator=torch.Generator().manual_seed(0))
    before = w.clone()
    with pytest.raises(KeyError), sam.moved_weights([w], [torch.full_like(w, 1e-3)]):
        assert torch.equal(w, before + 1e-3)
        raise KeyError
    assert torch.equal(w, before)


def test_without_radius_it_is_the_base_optimiser_bit_for_bit(network, stripes, weights_of, same_bits):
    shared = {"epochs": 2, "batch_size": 16, "lr": 0.05}
    data = {"train": stripes(), "validation": stripes(20, 1), "seed": 4}
    plain = train(erm.Erm(erm.Params(**shared)), model=network(0), **data)
    flat = train(sam.Sam(sam.Params(rho=0.0, **shared)), model=network(0), **data)
    assert same_bits(weights_of(plain.model), weights_of(flat.model))
    assert flat.budget.forward == 2 * plain.budget.forward
    assert flat.budget.backward == 2 * plain.budget.backward


def test_running_statistics_see_the_first_pass_only(network, stripes):
    model = network(0).train()
    twin = network(0).train()
    batch = stripes().batch(slice(None))
    run = TrainingRun(model=model, train=stripes(), validation=stripes(), seed=0)
    run.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sam.Sam(sam.Params(rho=0.5)).step(run, batch)
    twin(batch.images)
    ours, theirs = model.network[1], twin.network[1]
    assert int(ours.num_batches_tracked) == 1
    assert torch.equal(ours.running_mean, theirs.running_mean)
    assert torch.equal(ours.running_var, theirs.running_var)


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_loss_at_the_perturbed_weights_is_no_smaller(network, stripes, adaptive):
    model = network(1).eval()
    batch = stripes(64).batch(slice(None))
    method = sam.Sam(sam.Params())
    loss = method.loss(model, batch)
    weights = list(model.parameters())
    offsets = sam.sharpness_ascent(weights, torch.autograd.grad(loss, weights), rho=0.05, adaptive=adaptive)
    with sam.moved_weights(weights, offsets):
        above = method.loss(model, batch)
    assert above.item() > loss.item()
    length = math.sqrt(sum(part.square().sum().item() for part in offsets))
    assert adaptive or length == pytest.approx(0.05, rel=1e-4)
