from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn
from torch.nn.functional import cross_entropy

from robusteval.methods.classifier_gradients import ClassifierGradients, domain_weights, inconsistency


def equal(n):
    return torch.full((n,), 1 / n, dtype=torch.float64)


def draw(n=6, classes=3, width=5, seed=0, bias=True):
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(width, classes, bias=bias).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    features = torch.randn(n, width, generator=generator).double()
    labels = torch.randint(classes, (n,), generator=generator)
    return head, features, labels


def per_example(head, features, labels):
    """(B, K, d + 1): autograd's gradients one example at a time."""
    rows = []
    for feature, label in zip(features, labels, strict=True):
        grads = torch.autograd.grad(cross_entropy(head(feature[None]), label[None]), list(head.parameters()))
        rows.append(torch.cat([grads[0], *[grad[:, None] for grad in grads[1:]]], dim=1))
    return torch.stack(rows)


def gradients_of(head, features, labels):
    return ClassifierGradients.of(head(features), labels, features, bias=head.bias is not None)


def written_out(original, perturbed, head):
    """The penalty as the algorithm states it, on the full tensors."""
    centre = original.mean(dim=0)
    v_o = (original - centre).square().mean(dim=0)
    v_s = (perturbed - centre).square().mean(dim=0)
    average = (v_o + v_s) / 2
    variance = ((v_o - average).square().mean() + (v_s - average).square().mean()) / 2
    width = head.in_features
    norms = perturbed[:, :, :width].square().sum(dim=(1, 2)).mean() / head.weight.numel()
    if head.bias is not None:
        norms = norms + perturbed[:, :, width:].square().sum(dim=(1, 2)).mean() / head.bias.numel()
    return variance + norms


@pytest.mark.parametrize("bias", [True, False])
def test_closed_form_equals_autograd_per_example(bias):
    head, features, labels = draw(bias=bias)
    found = gradients_of(head, features, labels)
    outer = found.residuals[:, :, None] * found.extended[:, None, :]
    assert torch.allclose(outer, per_example(head, features, labels), atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_the_penalty_equals_its_definition(bias):
    head, features, labels = draw(bias=bias)
    other = features + torch.randn(features.shape, generator=torch.Generator().manual_seed(9)).double()
    weights = equal(6)
    found = inconsistency(gradients_of(head, features, labels), gradients_of(head, other, labels), weights)
    expected = written_out(per_example(head, features, labels), per_example(head, other, labels), head)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)


vectors = arrays.arrays(np.float64, 7, elements=st.floats(-100, 100))


@given(vectors, vectors)
def test_two_groups_about_their_mean_are_a_quarter_of_the_squared_distance(first, second):
    # Known answer 12: what allows `inconsistency` to skip the mean of both variances.
    average = (first + second) / 2
    half = sum(((group - average) ** 2).mean() for group in (first, second)) / 2
    assert half == pytest.approx(((first - second) ** 2).mean() / 4, rel=1e-9, abs=1e-12)


def test_equal_halves_leave_only_the_norms():
    head, features, labels = draw()
    found = gradients_of(head.float(), features.float(), labels)
    weights = torch.full((6,), 1 / 6)
    assert (inconsistency(found, found, weights) - found.mean_squared_norms(weights)).abs() < 1e-12


def test_repeating_the_batch_does_not_change_the_penalty():
    head, features, labels = draw()
    moved = features + 0.5
    once = inconsistency(gradients_of(head, features, labels), gradients_of(head, moved, labels), equal(6))
    twice = inconsistency(
        gradients_of(head, features.repeat(2, 1), labels.repeat(2)),
        gradients_of(head, moved.repeat(2, 1), labels.repeat(2)),
        equal(12),
    )
    assert twice.item() == pytest.approx(once.item(), rel=1e-9)


def test_the_gradient_reaches_the_features_and_the_head():
    head, features, labels = draw()
    features.requires_grad_()
    found = inconsistency(gradients_of(head, features, labels), gradients_of(head, features * 1.5, labels), equal(6))
    grads = torch.autograd.grad(found, [features, head.weight, head.bias])
    assert all(grad.abs().sum() > 0 for grad in grads)
    parameters = (features.detach(), head.weight.detach(), head.bias.detach())

    def penalty(phi, weight, bias):
        original = ClassifierGradients.of(phi @ weight.T + bias, labels, phi)
        perturbed = ClassifierGradients.of(1.5 * phi @ weight.T + bias, labels, 1.5 * phi)
        return inconsistency(original, perturbed, equal(6))

    assert torch.autograd.gradcheck(penalty, [value.requires_grad_() for value in parameters])


def test_domain_blocks_are_penalised_by_themselves_and_absent_ones_not_at_all():
    head, features, labels = draw()
    domains = torch.tensor([0, 2, 0, 2, 2, 0])
    blocks = domain_weights(domains, 4).double()
    assert blocks.sum(dim=1).tolist() == pytest.approx([1, 0, 1, 0])
    moved = features + 0.5
    original, perturbed = gradients_of(head, features, labels), gradients_of(head, moved, labels)
    whole = sum(inconsistency(original, perturbed, block) for block in blocks)
    alone = 0.0
    for domain in (0, 2):
        part = domains == domain
        alone += written_out(
            per_example(head, features[part], labels[part]), per_example(head, moved[part], labels[part]), head
        )
    assert whole.item() == pytest.approx(float(alone), rel=1e-6)
