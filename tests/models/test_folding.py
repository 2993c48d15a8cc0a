from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robusteval.models.build import build_classifier
from robusteval.models.classifier import Classifier
from robusteval.models.folding import batch_norms, direct_pairs, fold_batch_norms
from robusteval.schema.types import Component


def _images(n: int = 16, channels: int = 3, size: int = 8) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(7))


def _used(network: nn.Module) -> nn.Module:
    """The network with batch norms as training leaves them."""
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.normal_(0.0, 0.3, generator=generator)
            module.running_var.uniform_(0.3, 2.0, generator=generator)
            if module.affine:
                module.weight.data.uniform_(-1.5, 1.5, generator=generator)
                module.bias.data.normal_(0.0, 0.3, generator=generator)
    return network.eval().requires_grad_(False)


def _model(name: str, **params: object) -> Classifier:
    component = Component(name=name, params=params)
    model = build_classifier(
        component, classes=5, input_shape=(3, 8, 8), mean=(0.4, 0.5, 0.6), std=(0.3, 0.2, 0.1), seed=1
    )
    _used(model)
    return model


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.bn(self.conv(images))
        return maps


class _SameConvolutionTwice(_Block):
    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.bn(self.conv(images)) + self.conv(images.flip(3))
        return maps


class _OutputTwice(_Block):
    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        joined: Tensor = torch.cat([self.bn(maps), maps], dim=1)
        return joined


class _WrittenInto(_Block):
    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        maps[:, 0] = 3.0
        output: Tensor = self.bn(maps)
        return output


class _SameNormTwice(_Block):
    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.bn(self.bn(self.conv(images)))
        return maps


class _ChangedInPlace(_Block):
    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        maps.mul_(maps)
        output: Tensor = self.bn(maps)
        return output


class _Between(_Block):
    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.bn(torch.relu(self.conv(images)))
        return maps


class _OwnConvolution(nn.Conv2d):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).abs()


def _with_own_convolution() -> nn.Module:
    block = _Block()
    block.conv = _OwnConvolution(3, 4, 3)
    return block


def _with_a_hook() -> nn.Module:
    block = _Block()
    block.conv.register_forward_hook(lambda module, inputs, output: output.abs())
    return block


def _without_statistics() -> nn.Module:
    block = _Block()
    block.bn = nn.BatchNorm2d(4, track_running_stats=False)
    return block


def test_a_folded_convolution_has_the_weight_and_bias_worked_out_by_hand() -> None:
    convolution, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0)
    convolution.weight.data.fill_(2.0)
    convolution.bias = nn.Parameter(torch.tensor([1.0]))
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.fill_(3.0)
    norm.running_var.fill_(4.0)
    norm.weight.data.fill_(5.0)
    norm.bias.data.fill_(6.0)
    network = nn.Sequential(convolution, norm).eval().requires_grad_(False)
    assert fold_batch_norms(network, torch.ones(1, 1, 2, 2)) == 1
    # 5 * (2 x + 1 - 3) / sqrt(4) + 6 = 5 x + 1
    assert convolution.weight.item() == 5.0
    assert convolution.bias.item() == 1.0
    assert torch.equal(network(torch.full((1, 1, 2, 2), 10.0)), torch.full((1, 1, 2, 2), 51.0))


@pytest.mark.parametrize(
    ("name", "params", "folded", "norms"),
    [
        ("small-cnn", {"width": 4}, 3, 3),
        ("resnet20", {}, 19, 19),
        # The second batch norm of a pre-activation block alone takes what nothing but it takes: the stem's output is
        # the first block's shortcut too.
        ("preact-resnet18", {"width": 4}, 8, 17),
    ],
)
def test_architectures_keep_their_logits(name: str, params: dict[str, int], folded: int, norms: int) -> None:
    model = _model(name, **params)
    assert batch_norms(model) == norms
    twin = copy.deepcopy(model)
    assert fold_batch_norms(twin, _images()) == folded
    assert batch_norms(twin) == norms - folded
    other = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(8))
    expected = model(other)
    assert torch.allclose(twin(other), expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 2, "bias": False},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
        {"kernel_size": (1, 5), "padding": "same", "padding_mode": "reflect"},
    ],
    ids=["grouped", "dilated", "reflected"],
)
@pytest.mark.parametrize("affine", [True, False])
def test_every_kind_of_convolution_keeps_its_maps(options: dict[str, Any], affine: bool) -> None:
    network = _used(nn.Sequential(nn.Conv2d(4, 6, **options), nn.BatchNorm2d(6, affine=affine), nn.ReLU()))
    images = _images(channels=4)
    expected = network(images)
    assert fold_batch_norms(network, images) == 1
    assert torch.allclose(network(images), expected, atol=2e-5)


@pytest.mark.parametrize(
    "build",
    [
        _SameConvolutionTwice,
        _OutputTwice,
        _SameNormTwice,
        _WrittenInto,
        _ChangedInPlace,
        _Between,
        _with_own_convolution,
        _with_a_hook,
        _without_statistics,
    ],
    ids=[
        "same-convolution",
        "same-output",
        "same-norm",
        "written-into",
        "in-place",
        "between",
        "derived",
        "hook",
        "no-statistics",
    ],
)
def test_what_is_not_one_convolution_and_its_batch_norm_stays(build: Callable[[], nn.Module]) -> None:
    network = _used(build())
    before = network(_images())
    assert direct_pairs(network, _images()) == []
    assert fold_batch_norms(network, _images()) == 0
    assert torch.equal(network(_images()), before)


def test_a_batch_norm_in_training_mode_stays() -> None:
    network = _Block()
    _used(network)
    network.bn.train()
    assert direct_pairs(network, _images()) == []


def test_looking_for_pairs_leaves_no_hook_behind() -> None:
    network = _used(_Block())
    assert len(direct_pairs(network, _images())) == 1
    assert not any(module._forward_hooks for module in network.modules())


def test_a_weight_shared_with_another_layer_is_not_changed_there() -> None:
    first, second = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False)
    second.weight = first.weight
    network = _used(nn.Sequential(first, nn.BatchNorm2d(3), nn.ReLU(), second))
    expected = network(_images())
    assert fold_batch_norms(network, _images()) == 1
    assert torch.allclose(network(_images()), expected, atol=2e-5)
