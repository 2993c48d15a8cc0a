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


def fitted(pixels: tuple[torch.Tensor, torch.Tensor]) -> nn.Module:
    """A linear network, by ridge regression."""
    images, labels = pixels
    inputs = torch.cat([images.flatten(1), torch.ones(len(images), 1)], dim=1).double()
    targets = nn.functional.one_hot(labels, 10).double()
    solution = torch.linalg.solve(inputs.T @ inputs + torch.eye(inputs.shape[1]), inputs.T @ targets).float().T * 20
    network = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 10))
    network[1].weight.data, network[1].bias.data = solution[:, :-1].contiguous(), solution[:, -1].contiguous()
    return network


@pytest.fixture(scope="session")
def network(pixels: tuple[torch.Tensor, torch.Tensor]) -> nn.Module:
    return fitted(pixels)
