from __future__ import annotations

import pytest
import torch

from robusteval.models.build import build_classifier, resolve_architecture
from robusteval.models.heads import find_head
from robusteval.schema.errors import UnknownNameError, UsageError
from robusteval.schema.types import Component


def _build(name: str, shape: tuple[int, int, int] = (3, 32, 32), **params: object) -> torch.nn.Module:
    component = Component(name=name, params=params)
    half = (0.5,) * shape[0]
    return build_classifier(component, classes=10, input_shape=shape, mean=half, std=half, seed=0).network


@pytest.mark.parametrize(
    ("name", "millions"), [("resnet20", 0.27), ("resnet32", 0.46), ("resnet44", 0.66), ("resnet56", 0.85)]
)
def test_cifar_resnets_have_the_published_number_of_parameters(name: str, millions: float) -> None:
    count = sum(parameter.numel() for parameter in _build(name).parameters())
    assert round(count / 1e6, 2) == millions


def test_cifar_resnet_20_has_the_usual_state_dict_keys() -> None:
    names = {name.rpartition(".")[0] for name in _build("resnet20").state_dict()}
    blocks = {
        f"layer{stage}.{block}.{part}"
        for stage in (1, 2, 3)
        for block in range(3)
        for part in ("conv1", "bn1", "conv2", "bn2")
    }
    assert names == {"conv1", "bn1", "linear"} | blocks


@pytest.mark.parametrize(
    ("name", "params", "millions"),
    [
        ("preact-resnet18", {}, 11.2),
        ("wide-resnet", {"depth": 16, "width": 4}, 2.7),
        ("wide-resnet", {"depth": 40, "width": 2}, 2.2),
    ],
)
def test_wide_and_preactivation_networks_have_the_published_number_of_parameters(
    name: str, params: dict[str, object], millions: float
) -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in _build(name, **params).parameters())
    assert round(count / 1e6, 1) == millions


def test_a_small_cnn_stays_below_a_million_and_a_half_multiply_adds_on_digits() -> None:
    network = _build("small-cnn", (3, 16, 16))
    products: list[int] = []

    def count(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        products.append(module.weight[0].numel() * output[0].numel())

    for module in network.modules():
        if hasattr(module, "weight") and module.weight.dim() > 1:
            module.register_forward_hook(count)
    network.eval()(torch.zeros(1, 3, 16, 16))
    assert len(products) == 4
    assert sum(products) < 1_500_000


def test_convolutions_start_with_the_variance_of_he_et_al() -> None:
    network = _build("resnet20")
    weight = network.get_submodule("layer3.2.conv2").weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    _, head = find_head(network, 10)
    assert head.weight.std().item() == pytest.approx((1 / 64) ** 0.5, rel=0.1)
    assert head.bias.abs().max() == 0


def test_resolving_fills_in_every_parameter_once_and_for_all() -> None:
    resolved = resolve_architecture(Component(name="wide-resnet", params={"width": 2}))
    assert resolved.params == {"depth": 28, "width": 2, "dropout": 0.0}
    assert resolve_architecture(resolved) == resolved
    assert resolve_architecture(Component(name="resnet20")).params == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("small-cn", "did you mean 'small-cnn'"),
        ("timm/resnet188", "unknown timm model 'resnet188'; did you mean"),
        ("timm/resnet18.a1_in2k", "unknown timm weights 'resnet18.a1_in2k'; did you mean 'resnet18.a1_in1k'"),
        ("timm/hf-hub:someone/model", "unknown timm model"),
        ("timm/", "unknown timm model"),
    ],
)
def test_unknown_names_are_named_with_near_matches(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        resolve_architecture(Component(name=name))


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("small-cnn", {"width": 0}, "parameter 'width' is 0; Input should be greater than 0"),
        ("small-cnn", {"depth": 3}, "unknown parameter 'depth'; did you mean 'width'"),
        ("small-cnn", {"width": 2.5}, "'width' is 2.5"),
        ("wide-resnet", {"depth": 27}, r"'depth' is 27; a WideResNet has depth 6n \+ 4 .* not 27"),
        ("wide-resnet", {"dropout": float("nan")}, "'dropout' is nan"),
        ("resnet20", {"width": 3}, "unknown parameter 'width'; valid: none"),
        ("timm/resnet18", {"pretrained": "maybe"}, "'pretrained' is 'maybe'"),
    ],
)
def test_wrong_parameters_get_one_line_that_names_them(name: str, params: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        resolve_architecture(Component(name=name, params=params))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("resnet20", (3, 4, 4), "from 8 px up, not 4 x 4"),
        ("timm/inception_v3", (3, 16, 16), "timm cannot build 'inception_v3' for 3 x 16 x 16"),
        ("timm/swin_tiny_patch4_window7_224", (3, 9, 9), "timm cannot build"),
    ],
)
def test_images_that_an_architecture_cannot_take_are_named(
    name: str, shape: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        _build(name, shape)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_that_cannot_be_had_are_named() -> None:
    # This model never had any, so the answer is the same with and without a network.
    with pytest.raises(
        UsageError, match=r"timm cannot build 'resnetblur18' .* with pretrained weights: .*No pretrained"
    ):
        _build("timm/resnetblur18", pretrained=True)
