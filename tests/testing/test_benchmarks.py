from __future__ import annotations

import pytest
import torch
from torch import nn

from robusteval.schema.errors import UsageError
from robusteval.testing import benchmarks

SHAPE = (3, 16, 16)


class Counting(nn.Module):
    """Counts what it is shown, and whether a gradient was asked for."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(768, 10)
        self.calls: list[tuple[int, bool]] = []

    def forward(self, images):
        self.calls.append((len(images), torch.is_grad_enabled() and images.requires_grad))
        return self.linear(images.flatten(1))


def test_forward_shows_whole_batches_without_gradients(benchmark):
    model = Counting()
    benchmarks.forward(benchmark, model, SHAPE, batch=16, rounds=2, device="cpu")
    assert set(model.calls) == {(16, False)}
    assert benchmark.extra_info["shape"] == SHAPE


def test_forward_backward_asks_for_the_gradient_by_the_pixels_only(benchmark):
    model = Counting()
    benchmarks.forward_backward(benchmark, model, SHAPE, batch=16, rounds=2, device="cpu")
    assert set(model.calls) == {(16, True)}
    assert model.linear.weight.grad is None


def test_an_attack_is_measured_by_the_step_and_leaves_the_model_as_it_was(benchmark):
    model = Counting()
    benchmarks.apgd_step(benchmark, model, SHAPE, batch=16, threat="linf-1/255", device="cpu")
    found = benchmark.extra_info
    assert found["seconds_per_step"] * 10 * found["images_per_second"] == pytest.approx(16)
    assert model.training


def test_a_corruption_is_measured_by_its_name(benchmark):
    benchmarks.corruption_batch(benchmark, "brightness", SHAPE, batch=4, rounds=1, device="cpu")
    assert (benchmark.extra_info["batch"], benchmark.extra_info["device"]) == (4, "cpu")


def test_an_unknown_corruption_is_refused(benchmark):
    with pytest.raises(UsageError, match="unknown shift"):
        benchmarks.corruption_batch(benchmark, "brigthness", SHAPE)
