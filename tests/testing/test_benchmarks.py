from __future__ import annotations

import pytest
import torch
from torch import nn

import robusteval
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
    if benchmark.disabled:
        pytest.skip("pytest-benchmark measures nothing under pytest-xdist, or with --benchmark-disable")
    model = Counting()
    benchmarks.apgd_step(benchmark, model, SHAPE, batch=16, threat="linf-1/255", device="cpu")
    found = benchmark.extra_info
    assert found["seconds_per_step"] * 10 * found["images_per_second"] == pytest.approx(16)
    assert model.training


def test_a_corruption_is_measured_by_its_name(benchmark):
    benchmarks.corruption_batch(benchmark, "brightness", SHAPE, batch=4, rounds=1, device="cpu")
    assert (benchmark.extra_info["batch"], benchmark.extra_info["device"]) == (4, "cpu")


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_own_images_take_the_place_of_random_pixels(benchmark, kind):
    shown: list[torch.Tensor] = []

    class Looking(nn.Module):
        def forward(self, images):
            shown.append(images)
            return images.flatten(1)[:, :10]

    images = torch.randint(0, 256, (20, *SHAPE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    pixels = images.float() / 255
    benchmarks.forward(benchmark, Looking(), images if kind == torch.uint8 else pixels, rounds=1, device="cpu")
    assert benchmark.extra_info["batch"] == 20
    assert all(torch.equal(seen, pixels) for seen in shown)


def test_work_can_be_timed_in_another_way():
    images = torch.randint(0, 256, (3, *SHAPE), dtype=torch.uint8)
    work = benchmarks.corrupting("brightness", images, severity=5, preset="cifar10-c", device="cpu")
    assert torch.equal(work.images, images)
    assert torch.equal(work.run(), robusteval.corrupt(images, "brightness", 5, preset="cifar10-c"))
    model = Counting()
    with benchmarks.forwarding(model, SHAPE, batch=16, device="cpu") as work:
        assert model.calls == []
        work()
        assert not model.training
    assert model.training and model.calls == [(16, False)]


def test_an_unknown_corruption_is_refused():
    with pytest.raises(UsageError, match="unknown shift"):
        benchmarks.corrupting("brigthness", SHAPE)
