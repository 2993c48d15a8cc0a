from __future__ import annotations

import pytest
import torch

from robusteval.methods.base import MethodParams
from robusteval.methods.optimizers import (
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
)


def descend(weights, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        (weights[0].pow(4).sum() + weights[1].square().sum()).backward()
        optimizer.step()


@pytest.mark.parametrize(
    "params",
    [
        MethodParams(optimizer="sgd", lr=0.05, momentum=0.9),
        MethodParams(optimizer="sgd", lr=0.05, momentum=0.0),
        MethodParams(optimizer="adam", lr=0.05),
    ],
    ids=["momentum", "plain", "adam"],
)
def test_a_restored_state_continues_bit_for_bit(params):
    first = [torch.tensor([1.0, -2.0], requires_grad=True), torch.tensor(0.7, requires_grad=True)]
    optimizer = build_optimizer(params, first)
    descend(first, optimizer, 3)
    second = [w.detach().clone().requires_grad_() for w in first]
    restored = build_optimizer(params, second)
    load_optimizer_tensors(restored, {name: t.clone() for name, t in optimizer_tensors(optimizer).items()})
    descend(first, optimizer, 4)
    descend(second, restored, 4)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_sgd_with_momentum_and_weight_decay_takes_the_textbook_step():
    weight = torch.tensor([2.0], requires_grad=True)
    optimizer = build_optimizer(MethodParams(lr=0.1, momentum=0.5, weight_decay=0.01), [weight])
    for _ in range(2):
        optimizer.zero_grad()
        (3.0 * weight).sum().backward()
        optimizer.step()
    first = 2.0 - 0.1 * (3.0 + 0.01 * 2.0)
    velocity = 0.5 * 3.02 + 3.0 + 0.01 * first
    assert weight.item() == pytest.approx(first - 0.1 * velocity, rel=1e-6)


def test_the_learning_rate_changes_in_every_group():
    weights = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:]}], lr=1.0)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
