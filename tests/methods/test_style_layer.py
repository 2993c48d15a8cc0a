from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.nn.functional import cross_entropy

from robusteval.methods.style_layer import GradientReversal, StyleLayer


def maps(seed=0, batch=6, channels=4, size=9):
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 + 0.7


def test_evaluation_returns_its_input_bit_for_bit():
    layer, z = StyleLayer(4).eval(), maps()
    for _ in range(20):
        assert torch.equal(layer(z), z)


def test_a_batch_of_one_passes_unchanged_in_training():
    layer, z = StyleLayer(4).train(), maps(batch=1)
    for _ in range(20):
        assert torch.equal(layer(z), z)


def test_zero_scales_on_the_adversarial_branch_are_the_identity():
    layer, z = StyleLayer(4), maps()
    layer.initialised.fill_(True)
    with torch.no_grad():
        layer.sigma_mu.zero_()
        layer.sigma_sig.zero_()
    assert torch.allclose(layer.perturb(z, "adversarial"), z, atol=1e-5)


@pytest.mark.parametrize("branch", ["adversarial", "dsu"])
def test_the_output_has_the_drawn_statistics(branch):
    layer, z = StyleLayer(4), maps()
    layer.noise.manual_seed(5)
    styled = layer.perturb(z, branch)
    layer.noise.manual_seed(5)
    noise = torch.randn((2, 6, 4, 1, 1), generator=layer.noise)
    mu, sig = z.mean(dim=(2, 3), keepdim=True), (z.var(dim=(2, 3), keepdim=True) + 1e-6).sqrt()
    # The first adversarial branch takes over the batch's own scales, so both branches agree on these.
    wanted_mu = mu + noise[0] * (mu.var(dim=0, keepdim=True) + 1e-6).sqrt()
    wanted_sig = sig + noise[1] * (sig.var(dim=0, keepdim=True) + 1e-6).sqrt()
    assert torch.allclose(styled.mean(dim=(2, 3), keepdim=True), wanted_mu, rtol=1e-3, atol=1e-5)
    assert torch.allclose(styled.std(dim=(2, 3), keepdim=True), wanted_sig.abs(), rtol=1e-3, atol=1e-5)


def test_scales_are_set_once_by_the_first_adversarial_branch():
    layer = StyleLayer(4)
    layer.perturb(maps(1), "dsu")
    assert not layer.initialised
    assert torch.equal(layer.sigma_mu, torch.full((1, 4, 1, 1), 0.1))
    layer.perturb(maps(1), "adversarial")
    first = layer.sigma_mu.clone()
    layer.perturb(maps(2), "adversarial")
    assert layer.initialised
    assert torch.equal(layer.sigma_mu, first)
    assert torch.allclose(first, (maps(1).mean(dim=(2, 3), keepdim=True).var(dim=0, keepdim=True) + 1e-6).sqrt())


def test_gradients_flow_through_the_statistics():
    layer, z = StyleLayer(4), maps().requires_grad_()
    # Normalised maps have mean zero, so with detached statistics the mean of the output would not depend on the input.
    layer.perturb(z, "dsu").mean().backward()
    assert z.grad.abs().sum() > 1e-3


def test_the_reversal_negates_and_scales_the_gradient():
    value = torch.tensor([2.0, 3.0], requires_grad=True)
    out = GradientReversal.apply(value, 10.0)
    assert torch.equal(out, value)
    (out * torch.tensor([1.0, -2.0])).sum().backward()
    assert value.grad.tolist() == [-10.0, 20.0]


def head_loss(layer, z, labels):
    layer.noise.manual_seed(3)
    pooled = layer.perturb(z, "adversarial").amax(dim=(2, 3))
    return cross_entropy(pooled, labels)


@pytest.mark.parametrize("variant", ["a", "b"])
def test_a_descent_step_on_the_scales_raises_the_loss(variant):
    layer, z, labels = StyleLayer(4, variant=variant), maps(), torch.tensor([0, 1, 2, 3, 0, 1])
    before = head_loss(layer, z, labels)
    optimizer = torch.optim.SGD(layer.scales, lr=1e-3)
    before.backward()
    optimizer.step()
    assert head_loss(layer, z, labels).item() > before.item()


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_without_weight_and_decay_the_scales_stay(optimizer):
    layer, z, labels = StyleLayer(4, adv_weight=0.0), maps(), torch.tensor([0, 1, 2, 3, 0, 1])
    loss = head_loss(layer, z, labels)
    before = layer.sigma_mu.clone()
    stepper = optimizer(layer.scales, lr=1.0)
    loss.backward()
    stepper.step()
    assert torch.equal(layer.sigma_mu, before)


def test_only_the_direction_of_variant_b_scales_counts():
    layer, z = StyleLayer(4, variant="b", mix_weight=0.5), maps()
    layer.perturb(z, "adversarial")
    layer.noise.manual_seed(1)
    first = layer.perturb(z, "adversarial")
    with torch.no_grad():
        layer.sigma_mu.mul_(7.0)
        layer.sigma_sig.mul_(0.01)
    layer.noise.manual_seed(1)
    assert torch.allclose(layer.perturb(z, "adversarial"), first, atol=1e-4)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("a", {"identity": 1 / 3, "adversarial": 1 / 3, "dsu": 1 / 3}),
        ("b", {"identity": 1 / 2, "adversarial": 1 / 2}),
        ("dsu", {"identity": 1 / 2, "dsu": 1 / 2}),
    ],
)
def test_branches_are_equally_likely(variant, expected):
    layer = StyleLayer(1, variant=variant)
    layer.noise.manual_seed(0)
    drawn = Counter(layer.draw_branch() for _ in range(10_000))
    assert set(drawn) == set(expected)
    for branch, share in expected.items():
        # Five standard deviations of a binomial share.
        assert abs(drawn[branch] / 10_000 - share) < 5 * (share * (1 - share) / 10_000) ** 0.5


def test_scales_are_buffers_and_no_parameters():
    layer = StyleLayer(3)
    assert list(layer.parameters()) == []
    assert {name for name, _ in layer.named_buffers()} == {"sigma_mu", "sigma_sig", "initialised"}
    assert all(scale.requires_grad and scale.is_leaf for scale in layer.scales)
