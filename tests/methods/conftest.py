"""A small problem that every method can train on in a second: stripes whose direction and place is the class."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from robusteval.data.batches import DeviceSet
from robusteval.data.imageset import ImageSet
from robusteval.models.classifier import Classifier

CLASSES = 4


def make_images(n: int, seed: int, domains: tuple[str, ...] = ("plain",)) -> ImageSet:
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % CLASSES
    images = rng.integers(0, 90, size=(n, 3, 8, 8))
    for image, label in zip(images, labels, strict=True):
        stripe = image[:, 2 + 3 * (label // 2)] if label % 2 else image[:, :, 2 + 3 * (label // 2)]
        stripe += 120
    names = tuple(f"{seed}/{index}" for index in range(n))
    return ImageSet(
        images=images.astype(np.uint8),
        labels=labels,
        ids=names,
        groups=names,
        domains=tuple(domains[index * len(domains) // n] for index in range(n)),
        classes=tuple("abcd"),
    )


def make_network(seed: int, *, batch_norm: bool = True) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        norm = [nn.BatchNorm2d(6)] if batch_norm else []
        network = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            *norm,
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 16, CLASSES),
        )
    return Classifier(network, classes=CLASSES, input_shape=(3, 8, 8), mean=(0.3,) * 3, std=(0.25,) * 3)


@pytest.fixture
def network() -> Callable[..., Classifier]:
    """Builds the small network from a seed; `batch_norm=False` leaves its one batch-norm layer out."""
    return make_network


@pytest.fixture
def stripes() -> Callable[..., DeviceSet]:
    """Builds n striped images from a seed, as a device set."""

    def build(n: int = 40, seed: int = 0, domains: tuple[str, ...] = ("plain",)) -> DeviceSet:
        return DeviceSet(make_images(n, seed, domains))

    return build


@pytest.fixture
def weights_of() -> Callable[[Classifier], dict[str, torch.Tensor]]:
    """Copies every tensor of a model."""

    def copy(model: Classifier) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in model.state_dict().items()}

    return copy


@pytest.fixture
def same_bits() -> Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], bool]:
    """Whether two sets of named tensors are equal bit for bit."""

    def compare(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
        return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)

    return compare
