from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robusteval.attacks.base import AttackResult, build_attack
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import UsageError
from robusteval.schema.threats import RecolourThreat, Threat
from robusteval.schema.types import Component, Epsilon, ThreatModel


class Brightness(nn.Module):
    """Class 1 where the first channel is brighter than a half on average, else class 0."""

    def forward(self, images: Tensor) -> Tensor:
        excess = images[:, 0].mean(dim=(1, 2)) - 0.5
        return torch.stack([-excess, excess], dim=1)


class Unequal(nn.Module):
    """Class 1 where the first two pixels differ by more than 0.05, else class 0."""

    def forward(self, images: Tensor) -> Tensor:
        apart = (images[:, :, 0, 0] - images[:, :, 0, 1]).sum(dim=1) - 0.05
        return torch.stack([-apart, apart], dim=1)


def attacked(network: nn.Module, images: Tensor, threat: Threat, name: str = "recolour") -> AttackResult:
    channels, height, width = images.shape[1:]
    model = Classifier(
        network, classes=2, input_shape=(channels, height, width), mean=[0.0] * channels, std=[1.0] * channels
    )
    keys = torch.arange(len(images))
    attack = build_attack(Component(name=name), threat)
    return attack(model, images, torch.zeros(len(images), dtype=torch.int64), keys=keys, seed=0)


def recolour(epsilon: str) -> RecolourThreat:
    return RecolourThreat(epsilon=Epsilon(epsilon))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_colour_moves_as_far_as_epsilon_and_no_further(channels: int) -> None:
    levels = torch.tensor([0.1, 0.3, 0.38, 0.42, 0.49])
    images = levels[:, None, None, None].expand(-1, channels, 4, 4).contiguous()
    found = attacked(Brightness(), images, recolour("0.1"))
    assert found.broken.tolist() == [False, False, False, True, True]
    assert (found.norm <= 0.1 + 1e-6).all()


def test_pixels_of_one_colour_cannot_be_told_apart_as_a_ball_allows() -> None:
    images = torch.full((2, 3, 4, 4), 0.5)
    assert not attacked(Unequal(), images, recolour("0.2")).broken.any()
    assert attacked(Unequal(), images, ThreatModel(epsilon=Epsilon("0.2")), "pgd").broken.all()


def test_pixels_of_two_colours_are_moved_apart() -> None:
    images = torch.full((2, 1, 4, 4), 0.5)
    images[:, :, 0, 0] = 0.53
    assert attacked(Unequal(), images, recolour("0.4")).broken.all()
    assert not attacked(Unequal(), images, recolour("0.01")).broken.any()


def test_images_of_four_channels_are_refused_before_anything_is_spent() -> None:
    with pytest.raises(UsageError, match="at most 3 channels, these have 4"):
        attacked(Brightness(), torch.full((2, 4, 4, 4), 0.4), recolour("0.2"))
