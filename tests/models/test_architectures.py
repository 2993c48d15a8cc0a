"""One row an architecture, every property tested for every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robusteval.models import ARCHITECTURES
from robusteval.models.build import build_classifier
from robusteval.models.checkpoints import load_checkpoint, save_checkpoint
from robusteval.models.classifier import Classifier
from robusteval.models.heads import features_and_logits, find_head
from robusteval.schema.types import Component


@dataclass(frozen=True)
class Row:
    component: Component
    sizes: tuple[int, ...] = (16, 32)
    channels: int = 3
    head: str = "linear"
    twice: bool = True
    """Whether torch has the second derivative of every operation in it."""


def _row(name: str, params: dict[str, object] | None = None, **properties: Any) -> Row:
    return Row(Component(name=name, params=params or {}), **properties)


ROWS = [
    _row("small-cnn"),
    _row("small-cnn", {"width": 8}, sizes=(9, 28), channels=1),
    _row("resnet20"),
    _row("resnet32", sizes=(16,)),
    _row("resnet44", sizes=(16,)),
    _row("resnet56", sizes=(16,)),
    _row("preact-resnet18", {"width": 8}),
    _row("wide-resnet", {"depth": 10, "width": 2}),
    _row("timm/resnet18", sizes=(32,), channels=1, head="fc"),
    _row("timm/test_vit", sizes=(16, 32), head="head", twice=False),
    _row("timm/mobilenetv3_small_050", sizes=(32,), head="classifier", twice=False),
]
CASES = [
    pytest.param(row, size, id=f"{row.component.name}-{row.channels}x{size}") for row in ROWS for size in row.sizes
]
CLASSES = 7


def _built(row: Row, size: int, seed: int = 0) -> Classifier:
    shape = (row.channels, size, size)
    half = (0.5,) * row.channels
    return build_classifier(row.component, classes=CLASSES, input_shape=shape, mean=half, std=half, seed=seed)


def _images(model: Classifier, n: int) -> Tensor:
    return torch.rand(n, *model.input_shape, generator=torch.Generator().manual_seed(5))


def _with_statistics(model: Classifier) -> Classifier:
    """Batch-norm statistics that are not those of an untouched network."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            generator = torch.Generator().manual_seed(module.num_features)
            module.running_mean.normal_(generator=generator).mul_(0.1)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model


def test_every_registered_architecture_has_a_row() -> None:
    rows = {row.component.name for row in ROWS}
    assert rows >= set(ARCHITECTURES.names())
    assert all(any(name.startswith(family) for name in rows) for family in ARCHITECTURES.families())


@pytest.mark.parametrize(("row", "size"), CASES)
def test_training_reaches_every_parameter_and_every_pixel(row: Row, size: int) -> None:
    model = _built(row, size).train()
    images = _images(model, 4).requires_grad_(True)
    logits = model(images)
    assert logits.shape == (4, CLASSES)
    cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    unreached = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert unreached == []
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert (images.grad.abs().amax(dim=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize(("row", "size"), [case for case in CASES if case.values[0].twice])
def test_gradients_of_gradients_exist(row: Row, size: int) -> None:
    model = _built(row, size).train()
    parameters = list(model.parameters())
    loss = cross_entropy(model(_images(model, 4)), torch.tensor([0, 1, 2, 3]))
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    outer = torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), parameters, allow_unused=True)
    reached = [gradient for gradient in outer if gradient is not None]
    assert len(reached) > len(parameters) // 2
    assert all(torch.isfinite(gradient).all() for gradient in reached)


def _logits_and_gradients(model: Classifier, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_(True)
    logits = model(images)
    # The sum keeps the examples' losses apart: a mean would scale gradients with the batch size.
    (gradient,) = torch.autograd.grad(cross_entropy(logits, labels, reduction="sum"), images)
    return logits.detach(), gradient


@pytest.mark.parametrize(("row", "size"), CASES)
def test_logits_and_input_gradients_do_not_depend_on_batch_size_or_order(row: Row, size: int) -> None:
    model = _with_statistics(_built(row, size))
    images, labels = _images(model, 64), torch.arange(64) % CLASSES
    with model.frozen():
        logits, gradients = _logits_and_gradients(model, images, labels)
        order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
        shuffled = _logits_and_gradients(model, images[order], labels[order])
        assert torch.equal(shuffled[0], logits[order])
        assert torch.equal(shuffled[1], gradients[order])
        for batch in (1, 7, 16, 17, 33):
            part = slice(3, 3 + batch)
            alone = _logits_and_gradients(model, images[part], labels[part])
            assert torch.equal(alone[0], logits[part]), f"logits at batch {batch}"
            assert torch.equal(alone[1], gradients[part]), f"gradients at batch {batch}"


@pytest.mark.parametrize(("row", "size"), CASES)
def test_initial_weights_depend_on_the_seed_alone(row: Row, size: int) -> None:
    before = torch.random.get_rng_state()
    first = _built(row, size, seed=3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    again, other = _built(row, size, seed=3).state_dict(), _built(row, size, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("row", "size"), CASES)
def test_a_checkpoint_gives_the_same_model_back(row: Row, size: int) -> None:
    model = _with_statistics(_built(row, size)).eval()
    data = save_checkpoint(model, row.component, class_names=[f"c{index}" for index in range(CLASSES)])
    loaded, info = load_checkpoint(data, source="model.safetensors")
    state, found = model.state_dict(), loaded.state_dict()
    assert state.keys() == found.keys()
    assert all(torch.equal(state[name], found[name]) and state[name].dtype == found[name].dtype for name in state)
    images = _images(model, 3)
    assert torch.equal(model.predict(images), loaded.predict(images))
    assert torch.equal(model(images), loaded(images))
    assert save_checkpoint(loaded, info.architecture, class_names=info.class_names) == data


@pytest.mark.parametrize(("row", "size"), CASES)
def test_the_head_turns_the_features_into_the_logits(row: Row, size: int) -> None:
    model = _built(row, size).eval()
    name, head = find_head(model.network, CLASSES)
    assert name == row.head
    assert model.network.get_submodule(name) is head
    features, logits = features_and_logits(model, _images(model, 3))
    assert features.shape == (3, head.in_features)
    assert features.requires_grad
    torch.testing.assert_close(head(features), logits)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if "/" not in row.component.name], ids=lambda row: row.component.name
)
def test_stages_are_direct_children_that_can_be_replaced_by_name(row: Row) -> None:
    images = torch.rand(2, row.channels, row.sizes[0], row.sizes[0])
    plain = _built(row, row.sizes[0]).network.eval()(images)
    for name in ("conv1", "layer1", "layer2"):
        network = _built(row, row.sizes[0]).network.eval()
        setattr(network, name, nn.Sequential(network.get_submodule(name), nn.Hardtanh(0.0, 1e-3)))
        assert not torch.equal(network(images), plain), name
