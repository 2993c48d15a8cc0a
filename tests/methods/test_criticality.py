from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from robusteval.methods.criticality import AscentSettings, candidates, mean_loss, module_criticality
from robusteval.schema.errors import CellError


@pytest.fixture
def adversarial(stripes):
    batch = stripes(40).batch(slice(None))
    return batch.images, batch.labels


def measure(model, name, adversarial, watch=None, **settings):
    settings = AscentSettings(**{"epochs": 4, "batch_size": 16, **settings})
    return module_criticality(model, candidates(model.network)[name], name, adversarial, settings, watch)


def test_candidates_are_the_weights_of_convolutions_and_linear_layers(network):
    model = network(0)
    found = candidates(model.network)
    assert list(found) == ["0", "3", "6"]
    assert all(found[name] is model.network.get_submodule(name).weight for name in found)


def test_a_tensor_shared_by_two_modules_is_one_candidate():
    shared = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    shared[1].weight = shared[0].weight
    assert list(candidates(shared)) == ["0"]


@pytest.mark.parametrize("name", ["0", "3", "6"])
@pytest.mark.parametrize("radius", [0.01, 0.1])
def test_no_change_is_larger_than_the_radius_after_a_projection(network, adversarial, name, radius):
    model = network(0)
    size = candidates(model.network)[name].norm()
    ratios = []
    value = measure(
        model, name, adversarial, lambda change: ratios.append((change.norm() / size).item()), radius=radius
    )
    assert len(ratios) == 4
    assert all(ratio <= radius + 1e-6 for ratio in ratios)
    assert ratios[-1] == pytest.approx(radius, rel=1e-4)
    assert value > 0


def test_without_radius_the_criticality_is_zero(network, adversarial):
    assert measure(network(0), "3", adversarial, radius=0.0) == 0.0


def test_a_larger_ball_never_holds_a_smaller_maximum(network, adversarial):
    values = [measure(network(0), "3", adversarial, radius=radius) for radius in (0.02, 0.05, 0.1, 0.2)]
    assert values == sorted(values)


def test_the_model_is_as_before_bit_for_bit(network, adversarial, weights_of, same_bits):
    model = network(0).train()
    next(model.parameters()).requires_grad_(False)
    before, flags = weights_of(model), [parameter.requires_grad for parameter in model.parameters()]
    measure(model, "3", adversarial)
    assert same_bits(before, weights_of(model))
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())


def test_it_does_not_matter_which_parameters_are_frozen_or_the_mode(network, adversarial):
    frozen = network(0).eval()
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    assert measure(frozen, "3", adversarial) == measure(network(0).train(), "3", adversarial)


def test_one_full_batch_epoch_is_one_projected_gradient_step(network, adversarial):
    images, labels = adversarial
    model = network(0).eval()
    weight = candidates(model.network)["6"]
    loss = cross_entropy(model(images), labels)
    (gradient,) = torch.autograd.grad(loss, weight)
    change = gradient * (0.1 * weight.norm() / gradient.norm()).clamp(max=1.0)
    with torch.no_grad():
        weight.add_(change)
        expected = cross_entropy(model(images), labels) - loss
        weight.sub_(change)
    found = measure(model, "6", adversarial, epochs=1, batch_size=64, lr=1.0)
    assert found == pytest.approx(expected.item(), rel=1e-4)


def test_the_mean_loss_does_not_depend_on_the_batch_size(network, adversarial):
    model = network(0).eval()
    values = [mean_loss(model, *adversarial, batch_size=size).item() for size in (7, 16, 40)]
    assert values == pytest.approx([cross_entropy(model(adversarial[0]), adversarial[1]).item()] * 3, rel=1e-5)


def test_passes_are_two_forward_and_one_backward_per_epoch_and_example(network, adversarial):
    model = network(0)
    measure(model, "0", adversarial, epochs=3)
    assert (model.passes.forward, model.passes.backward) == (40 * (3 * 2 + 1), 40 * 3)


def test_a_diverged_ascent_names_the_module_and_leaves_the_model(network, adversarial, weights_of, same_bits):
    model = network(0)
    before = weights_of(model)
    with pytest.raises(CellError, match=r"module '3' diverged; lower params.criticality_lr"):
        measure(model, "3", adversarial, lr=1e38)
    assert same_bits(before, weights_of(model))
