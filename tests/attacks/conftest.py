from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from robusteval.models.classifier import Classifier
from robusteval.schema.types import Epsilon, Norm, ThreatModel


@dataclass(frozen=True)
class Examples:
    """Correctly classified images (B, C, H, W) with labels (B,) and keys (B,)."""

    images: Tensor
    labels: Tensor
    keys: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Tensor) -> Examples:
        return Examples(self.images[positions], self.labels[positions], self.keys[positions])


@dataclass(frozen=True)
class Linear:
    """A linear classifier with its examples and their exact distances to the decision boundary.

    Classes 0 and 1 compete; the others have a logit of -20 everywhere. The boundary between 0 and 1 is the plane
    `<w, x> = c`, so the distance is the gap of the logits over the dual norm of w, as long as no pixel hits the box.
    """

    model: Classifier
    examples: Examples
    threat: ThreatModel
    ratios: Tensor
    """(B,) distance to the boundary over epsilon."""


EPSILONS = {Norm.LINF: "1/50", Norm.L2: "1/4", Norm.L1: "1/4"}


def linear_problem(norm: Norm) -> Linear:
    generator = torch.Generator().manual_seed(3)
    shape, classes = (3, 8, 8), 5
    weight = torch.randn(3 * 8 * 8, generator=generator)
    gap_unit = {Norm.LINF: weight.abs().sum(), Norm.L2: weight.norm(), Norm.L1: weight.abs().max()}[norm]
    threat = ThreatModel(norm=norm, epsilon=Epsilon(EPSILONS[norm]))
    layer = nn.Linear(weight.numel(), classes)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0], layer.weight[1] = weight / 2, -weight / 2
        layer.bias.copy_(torch.tensor([0.0, 0.0, -20.0, -20.0, -20.0]))
    model = Classifier(
        nn.Sequential(nn.Flatten(), layer), classes=classes, input_shape=shape, mean=[0.0] * 3, std=[1.0] * 3
    )
    ratios = torch.tensor([0.2, 0.4, 0.6, 0.8, 0.95, 1.05, 1.3, 2.0]).repeat_interleave(2)
    labels = torch.arange(len(ratios)) % 2
    raw = 0.5 + 0.1 * (2 * torch.rand(len(ratios), weight.numel(), generator=generator) - 1)
    wanted = ratios * float(threat.epsilon) * gap_unit * torch.where(labels == 0, 1.0, -1.0)
    images = raw + ((wanted - raw @ weight) / weight.norm() ** 2)[:, None] * weight
    keys = torch.randint(0, 2**62, (len(ratios),), generator=generator)
    return Linear(model, Examples(images.view(-1, *shape), labels, keys), threat, ratios)


@pytest.fixture(scope="session")
def linear() -> Callable[[Norm], Linear]:
    problems = {norm: linear_problem(norm) for norm in Norm}
    return problems.__getitem__


@dataclass(frozen=True)
class Trained:
    model: Classifier
    examples: Examples


@pytest.fixture(scope="session")
def trained() -> Trained:
    """A small trained CNN with batch norm and 80 examples it gets right; ten classes of noisy 12 x 12 patterns."""
    torch.manual_seed(0)
    shape = (3, 12, 12)
    patterns = 0.5 + 0.12 * torch.randn(10, *shape)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 36, 10),
    )
    model = Classifier(network, classes=10, input_shape=shape, mean=[0.5] * 3, std=[0.25] * 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        labels = torch.randint(0, 10, (64,))
        images = (patterns[labels] + 0.15 * torch.randn(64, *shape)).clamp(0, 1)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.eval()
    model.zero_grad(set_to_none=True)
    labels = torch.arange(120) % 10
    images = (patterns[labels] + 0.15 * torch.randn(120, *shape)).clamp(0, 1)
    right = (model.predict(images) == labels).nonzero().flatten()[:80]
    assert len(right) == 80
    keys = torch.randint(0, 2**62, (80,))
    return Trained(model, Examples(images[right], labels[right], keys))
