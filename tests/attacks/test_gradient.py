from __future__ import annotations

import pytest
import torch
from torch import nn

from robusteval.attacks.base import build_attack
from robusteval.attacks.geometry import perturbation_norm
from robusteval.attacks.gradient import ascend, cross_entropy, input_gradient, negative_margin, steepest
from robusteval.models.classifier import Classifier
from robusteval.schema.types import Component, Epsilon, Norm, ThreatModel

MIXED = {Norm.LINF: "0.045", Norm.L2: "0.75"}
"""Radii at which some of the trained model's examples survive and some do not."""


def attack_of(norm: Norm, **params):
    return build_attack(Component(name="pgd", params=params), ThreatModel(norm=norm, epsilon=Epsilon(MIXED[norm])))


def run(attack, trained, positions=None, seed=0):
    examples = trained.examples if positions is None else trained.examples.take(positions)
    return attack(trained.model, examples.images, examples.labels, keys=examples.keys, seed=seed)


@pytest.mark.parametrize("norm", MIXED)
def test_survivors_do_not_depend_on_batch_size_or_order(norm, trained) -> None:
    attack, n = attack_of(norm, steps=4, restarts=2), 48
    together = run(attack, trained, torch.arange(n))
    assert 3 < int(together.broken.sum()) < n - 3
    orders = [torch.arange(n), torch.randperm(n, generator=torch.Generator().manual_seed(1))]
    for size, order in [(1, orders[0]), (7, orders[0]), (64, orders[0]), (n, orders[1]), (7, orders[1])]:
        parts = [run(attack, trained, part) for part in order.split(size)]
        broken, adversarial = torch.empty_like(together.broken), torch.empty_like(together.adversarial)
        broken[order] = torch.cat([part.broken for part in parts])
        adversarial[order] = torch.cat([part.adversarial for part in parts])
        assert torch.equal(broken, together.broken)
        assert torch.allclose(adversarial, together.adversarial, atol=1e-6)
        assert sum(part.budget.forward for part in parts) == together.budget.forward
        assert sum(part.budget.backward for part in parts) == together.budget.backward


def test_restarts_only_add_broken_examples_and_only_cost_survivors(trained) -> None:
    one = run(attack_of(Norm.LINF, steps=3), trained)
    three = run(attack_of(Norm.LINF, steps=3, restarts=3), trained)
    assert (three.broken | ~one.broken).all()
    survivors = int((~one.broken).sum())
    assert three.budget.backward - one.budget.backward <= 2 * 3 * survivors


def test_more_steps_and_a_larger_ball_break_no_less(trained) -> None:
    broken = [
        int(run(attack_of(Norm.LINF, steps=steps, step_size="0.01"), trained).broken.sum()) for steps in (2, 5, 20)
    ]
    assert broken == sorted(broken)
    assert broken[0] < broken[-1]


def test_a_survivor_costs_what_the_plan_says(trained) -> None:
    attack = build_attack(
        Component(name="pgd", params={"steps": 5, "restarts": 2}), ThreatModel(norm=Norm.LINF, epsilon=Epsilon("1e-4"))
    )
    result = run(attack, trained)
    assert not result.broken.any()
    forward, backward = type(attack).passes(attack.params, 10)
    assert (result.budget.forward, result.budget.backward) == (80 * forward, 80 * backward)


def test_an_example_that_breaks_at_once_is_not_attacked_any_further(trained) -> None:
    attack = build_attack(Component(name="pgd", params={"steps": 50}), ThreatModel(norm=Norm.LINF, epsilon=Epsilon(1)))
    result = run(attack, trained)
    assert result.broken.all()
    assert result.budget.backward < 80 * 10


def test_the_seed_changes_the_start_and_nothing_else(trained) -> None:
    attack = attack_of(Norm.LINF, steps=2)
    first, again, other = run(attack, trained), run(attack, trained), run(attack, trained, seed=1)
    assert torch.equal(first.adversarial, again.adversarial)
    assert not torch.equal(first.adversarial, other.adversarial)
    fixed = attack_of(Norm.LINF, steps=2, random_start=False)
    assert torch.equal(run(fixed, trained).adversarial, run(fixed, trained, seed=1).adversarial)


@pytest.mark.parametrize("norm", MIXED)
def test_ascend_follows_the_written_recursion(norm, linear) -> None:
    problem = linear(norm)
    model, images, labels = problem.model, problem.examples.images, problem.examples.labels
    weight = (model.network[1].weight[0] - model.network[1].weight[1]).detach().view(3, 8, 8)
    towards = torch.where(labels == 0, -1.0, 1.0)[:, None, None, None] * weight
    direction = towards.sign() if norm is Norm.LINF else towards / weight.norm()
    free = ascend(model, images, labels, norm=norm, epsilon=0.5, step_size=0.01, steps=3)
    assert torch.allclose(free, images + 0.03 * direction, atol=1e-5)
    held = ascend(model, images, labels, norm=norm, epsilon=0.02, step_size=0.01, steps=5)
    assert torch.allclose(held, images + 0.02 * direction, atol=1e-5)
    loose = ascend(model, images, labels, norm=norm, epsilon=0.02, step_size=0.01, steps=5, project=False)
    assert torch.allclose(loose, images + 0.05 * direction, atol=1e-5)
    corner = ascend(model, images, labels, norm=norm, epsilon=9.0, step_size=9.0, steps=1, start=images + 2)
    assert ((corner >= 0) & (corner <= 1)).all()


def test_ascend_leaves_modes_flags_and_gradients_to_the_caller(trained) -> None:
    model, examples = trained.model, trained.examples
    network = model.network
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        model.train()
        network[0].weight.requires_grad_(False)
        images = examples.images.clone().requires_grad_()
        worst = ascend(model, images, examples.labels, norm=Norm.LINF, epsilon=0.03, step_size=0.01, steps=2)
        assert not worst.requires_grad
        assert images.grad is None
        assert all(parameter.grad is None for parameter in model.parameters())
        assert [parameter.requires_grad for parameter in network[0].parameters()] == [False]
        assert all(parameter.requires_grad for parameter in network[3].parameters())
        assert all(module.training for module in model.modules())
        assert int(network[1].num_batches_tracked) == int(before["network.1.num_batches_tracked"]) + 2
    finally:
        network[0].weight.requires_grad_(True)
        model.eval()
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])


def test_ascend_is_float32_inside_autocast(trained) -> None:
    model, examples = trained.model, trained.examples
    arguments = {"norm": Norm.L2, "epsilon": 0.5, "step_size": 0.1, "steps": 3}
    plain = ascend(model, examples.images, examples.labels, **arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = ascend(model, examples.images, examples.labels, **arguments)
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(plain, mixed)


def test_gradients_of_one_example_do_not_depend_on_the_others(trained) -> None:
    model, examples = trained.model, trained.examples
    for loss in (cross_entropy, negative_margin):
        whole, _ = input_gradient(model, examples.images, examples.labels, loss)
        part, _ = input_gradient(model, examples.images[3:5], examples.labels[3:5], loss)
        assert torch.allclose(whole[3:5], part, atol=1e-7)


def test_losses_have_their_textbook_values() -> None:
    logits, labels = torch.tensor([[2.0, 1.0, 0.0], [0.5, 1.5, 0.0]]), torch.tensor([0, 0])
    assert torch.allclose(cross_entropy(logits, labels), torch.tensor([0.407606, 1.464368]), atol=1e-6)
    assert torch.allclose(negative_margin(logits, labels), torch.tensor([-1.0, 1.0]))


def test_the_steepest_direction_has_unit_length_or_is_zero() -> None:
    gradient = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    gradient[2] = 0
    for norm in MIXED:
        size = perturbation_norm(steepest(gradient, norm), norm)
        assert torch.allclose(size, torch.tensor([1.0, 1.0, 0.0, 1.0]))


class Rounded(nn.Module):
    """A linear layer behind a staircase: the gradient is zero everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 3)

    def forward(self, images):
        return self.linear((images * 10).round().flatten(1) / 10)


class Undefined(nn.Module):
    """Finite logits whose gradient is NaN where the first pixel is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 3)

    def forward(self, images):
        flat = images.flatten(1)
        root = (flat[:, :1] * 0).sqrt()
        return self.linear(flat) + root


@pytest.mark.parametrize(("network", "code"), [(Rounded, "zero-gradient"), (Undefined, "nan-gradient")])
def test_broken_gradients_are_counted_and_flagged(network, code) -> None:
    torch.manual_seed(0)
    model = Classifier(network(), classes=3, input_shape=(3, 2, 2), mean=[0] * 3, std=[1] * 3)
    images = torch.rand(20, 3, 2, 2)
    labels = model.predict(images)
    attack = build_attack(
        Component(name="pgd", params={"steps": 3}), ThreatModel(norm=Norm.LINF, epsilon=Epsilon("0.001"))
    )
    result = attack(model, images, labels, keys=torch.arange(20), seed=0)
    assert [flag.code for flag in result.flags] == [code]
    assert result.symptoms[code] > 10
    assert str(result.symptoms[code]) in result.flags[0].evidence
