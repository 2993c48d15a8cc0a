from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from robusteval.data.digits import Digits

SUITE = """\
name: gate
version: 1
summary: What the tests of the front door measure.
train: {data: digits, domains: [upright], architecture: {name: small-cnn, params: {width: 4}}}
methods:
  - {method: erm, params: {epochs: 1, lr: 0.05}}
evaluate:
  id: {examples: 150, robust_examples: 40}
  ood: {domains: [rotated], examples: 40, robust_examples: 10}
  threats:
    - {epsilon: 0.05, attacks: [fgsm]}
"""


@pytest.fixture(scope="session")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite that measures a model in a second."""
    path = tmp_path_factory.mktemp("gate") / "gate.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="session")
def pixels() -> tuple[torch.Tensor, torch.Tensor]:
    """Training digits, in [0, 1], with labels."""
    found = Digits(Digits.Params()).load("upright", "train")
    return torch.from_numpy(found.images[:].copy()).float() / 255, torch.from_numpy(found.labels.copy())


def fitted(pixels: tuple[torch.Tensor, torch.Tensor], scale: float = 1.0, shift: float = 0.0) -> nn.Module:
    """A small linear network that was trained on `pixels * scale + shift`."""
    torch.manual_seed(0)
    images, labels = pixels
    network = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 10))
    inputs = images * scale + shift
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05 / scale)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(inputs), labels).backward()
        optimiser.step()
    return network


@pytest.fixture(scope="session")
def network(pixels: tuple[torch.Tensor, torch.Tensor]) -> nn.Module:
    return fitted(pixels)
