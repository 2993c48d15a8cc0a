from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from robusteval.data.imageset import ImageSet
from robusteval.models.classifier import Classifier

SHAPE = (3, 10, 10)


@dataclass(frozen=True)
class Task:
    model: Classifier
    data: ImageSet


def image_set(images: torch.Tensor, labels: torch.Tensor, domains: list[str]) -> ImageSet:
    ids = tuple(f"{domain}/{index}" for index, domain in enumerate(domains))
    return ImageSet(
        images=(images * 255).round().to(torch.uint8).numpy(),
        labels=labels.numpy().astype(np.int64),
        ids=ids,
        groups=ids,
        domains=tuple(domains),
        classes=tuple("abcdef"),
    )


@pytest.fixture(scope="session")
def task() -> Task:
    """A trained CNN with batch norm, and 90 test images of six noisy patterns in a plain and a dimmed domain."""
    torch.manual_seed(0)
    patterns = 0.5 + 0.12 * torch.randn(6, *SHAPE)

    def draw(labels: torch.Tensor) -> torch.Tensor:
        return (patterns[labels] + 0.2 * torch.randn(len(labels), *SHAPE)).clamp(0, 1)

    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 25, 6),
    )
    model = Classifier(network, classes=6, input_shape=SHAPE, mean=[0.5] * 3, std=[0.25] * 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        labels = torch.randint(0, 6, (48,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(draw(labels)), labels).backward()
        optimizer.step()
    model.eval()
    model.zero_grad(set_to_none=True)
    labels = torch.arange(90) % 6
    images = draw(labels)
    images[50:] = (images[50:] * 0.5 + 0.4 * torch.rand(40, *SHAPE)).clamp(0, 1)
    return Task(model, image_set(images, labels, ["plain"] * 50 + ["dimmed"] * 40))
