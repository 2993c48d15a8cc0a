from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robusteval.models.fused_convolution import FusedConvolution
from robusteval.models.fusion import SteadyLinear, finish_in_float32, fuse_convolutions, steady_linears

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch lacks oneDNN")


class _Net(nn.Module):
    """Two convolutions and whatever a test does with them."""

    def __init__(self, body: Callable[[_Net, Tensor], Tensor], **geometry: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.first = nn.Conv2d(4, 8, 3, padding=1)
            self.second = nn.Conv2d(8, 8, **{"kernel_size": 3, "padding": 1, **geometry})
        self.drop, self.relu = nn.Dropout(0.5), nn.ReLU()
        self.body = body

    def forward(self, maps: Tensor) -> Tensor:
        return torch.mean(self.body(self, maps), dim=(2, 3))


def _images(n: int = 17) -> Tensor:
    images = torch.rand(n, 4, 9, 10, generator=torch.Generator().manual_seed(1)) - 0.5
    return images.contiguous(memory_format=torch.channels_last)


def _quiet(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False)


def _fused(network: nn.Module) -> nn.Module:
    return fuse_convolutions(copy.deepcopy(network), _images(1))


def _gradient(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    leaf = images.clone().requires_grad_(True)
    logits = network(leaf)
    (gradient,) = torch.autograd.grad((logits * torch.arange(1.0, 9.0)).sum(), leaf)
    return logits.detach(), gradient


def _relu_then_sum(net: _Net, maps: Tensor) -> Tensor:
    first = net.relu(net.first(maps))
    return torch.relu(net.second(first) + first)


def _sum_in_place(net: _Net, maps: Tensor) -> Tensor:
    first = net.first(maps)
    second = net.second(torch.relu(first))
    second += first
    return second.relu()


def _read_before_the_relu(net: _Net, maps: Tensor) -> Tensor:
    first = net.first(maps)
    return net.second(net.drop(torch.relu(first))) + first.mean(dim=(2, 3), keepdim=True)


def _doubled(net: _Net, maps: Tensor) -> Tensor:
    second = net.second(net.first(maps))
    return torch.relu(second + second)


def _strided_shortcut(net: _Net, maps: Tensor) -> Tensor:
    first = net.relu(net.first(maps))
    return net.relu(net.second(first)[:, :, ::2, ::2] + first[:, :, ::2, ::2])


def _called_twice(net: _Net, maps: Tensor) -> Tensor:
    return net.second(torch.relu(net.second(net.first(maps))))


def _plain(net: _Net, maps: Tensor) -> Tensor:
    return net.relu(net.second(net.relu(net.first(maps))))


BODIES = [
    _relu_then_sum,
    _sum_in_place,
    _read_before_the_relu,
    _doubled,
    _strided_shortcut,
    _called_twice,
]


@pytest.mark.parametrize("body", BODIES)
def test_fused_networks_compute_the_same_logits_and_input_gradients(body: Callable[[_Net, Tensor], Tensor]) -> None:
    network = _quiet(_Net(body))
    fused = _fused(network)
    assert any(isinstance(module, FusedConvolution) for module in fused.modules())
    expected, reference = _gradient(network, _images())
    logits, gradient = _gradient(fused, _images())
    assert torch.allclose(logits, expected, atol=1e-6)
    assert torch.allclose(gradient, reference, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(fused(_images()), expected, atol=1e-6)


@pytest.mark.parametrize(
    "geometry",
    [
        {"stride": 2},
        {"dilation": 2},
        {"groups": 4},
        {"kernel_size": 1, "padding": 0},
        {"kernel_size": 1, "padding": 1},
        {"kernel_size": 5, "padding": 0},
    ],
)
def test_every_geometry_of_a_convolution_has_its_gradient(geometry: dict[str, int]) -> None:
    network = _quiet(_Net(_plain, **geometry))
    expected, reference = _gradient(network, _images())
    logits, gradient = _gradient(_fused(network), _images())
    assert torch.allclose(logits, expected, atol=1e-6)
    assert torch.allclose(gradient, reference, atol=1e-6)


def test_sums_and_relus_become_part_of_the_convolutions() -> None:
    fused = _fused(_quiet(_Net(_relu_then_sum)))
    assert isinstance(fused, torch.fx.GraphModule)
    assert [node.target for node in fused.graph.nodes if node.op == "call_function"] == [torch.mean]
    assert sum(node.op == "call_module" for node in fused.graph.nodes) == 2


def test_a_low_network_that_finishes_in_float32_errs_less() -> None:
    network = _quiet(nn.Sequential(_Net(_plain), nn.Linear(8, 5)))
    low = copy.deepcopy(network).bfloat16()
    fused = fuse_convolutions(copy.deepcopy(low), _images(1).bfloat16())
    images = _images(64)
    with torch.no_grad():
        expected, rounded = network(images), fused(images.bfloat16())
        finish_in_float32(fused, network)
        finished = fused(images.bfloat16())
    assert (rounded.dtype, finished.dtype) == (torch.bfloat16, torch.float32)
    assert (finished - expected).square().mean() < (rounded.float() - expected).square().mean() / 2


def test_a_graph_that_is_kept_gives_the_same_gradient_twice() -> None:
    fused = _fused(_quiet(_Net(_relu_then_sum)))
    leaf = _images().requires_grad_(True)
    total = fused(leaf).sum()
    (first,) = torch.autograd.grad(total, leaf, retain_graph=True)
    (second,) = torch.autograd.grad(total, leaf)
    assert torch.equal(first, second)


def test_a_copy_with_other_weights_computes_with_them() -> None:
    fused = _fused(_quiet(_Net(_plain)))
    with torch.no_grad():
        before = fused(_images())
        other = copy.deepcopy(fused)
        for parameter in other.parameters():
            parameter.mul_(0.5)
        assert not torch.allclose(other(_images()), before)
        assert torch.equal(fused(_images()), before)


def test_networks_with_hooks_without_convolutions_or_with_branches_are_refused() -> None:
    hooked = _quiet(_Net(_plain))
    handle = hooked.relu.register_forward_hook(lambda *_: None)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="hooks"):
        _fused(hooked)
    handle.remove()
    with pytest.raises(ValueError, match="no convolution"):
        _fused(_quiet(nn.Sequential(nn.Flatten(), nn.Linear(360, 8))))
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        _fused(_quiet(_Net(lambda net, maps: net.first(maps) if maps.sum() > 0 else net.second(net.first(maps)))))


def test_a_steady_linear_layer_gives_a_row_the_same_bits_alone_and_among_many() -> None:
    linear = nn.Linear(64, 10).requires_grad_(False)
    steady = SteadyLinear(linear)
    rows = torch.randn((40, 64), generator=torch.Generator().manual_seed(0))
    whole = steady(rows)
    assert torch.equal(whole, linear(rows))
    for count in (1, 2, 3, 15, 16):
        assert torch.equal(steady(rows[:count]), whole[:count])


def test_every_linear_layer_is_made_steady_once() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 3)))
    images = torch.randn((5, 3, 2, 2), generator=torch.Generator().manual_seed(0))
    before = network(images)
    steady_linears(network)
    assert [type(module) for module in network.modules()].count(SteadyLinear) == 2
    torch.testing.assert_close(network(images), before)
    leaf = images.requires_grad_(True)
    (gradient,) = torch.autograd.grad(network(leaf).sum(), leaf)
    assert gradient.abs().sum() > 0
