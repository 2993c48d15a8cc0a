from __future__ import annotations

import torch
from torch import Tensor, nn

from robusteval.attacks.base import build_attack
from robusteval.attacks.spatial import SpatialAttack
from robusteval.models.classifier import Classifier
from robusteval.schema.threats import SpatialThreat
from robusteval.schema.types import Component


class Corner(nn.Module):
    """Class 1 as soon as the upper left pixel is bright, else class 0."""

    def forward(self, images: Tensor) -> Tensor:
        bright = images[:, 0, 0, 0]
        return torch.stack([0.5 - bright, bright - 0.5], dim=1)


def verdict(row: int, column: int, threat: SpatialThreat, **params: int) -> bool:
    """Whether the attack brings the one bright pixel at (row, column) of 5 x 5 into the upper left corner."""
    model = Classifier(Corner(), classes=2, input_shape=(1, 5, 5), mean=[0.0], std=[1.0])
    images = torch.zeros(1, 1, 5, 5)
    images[0, 0, row, column] = 1.0
    attack = build_attack(Component(name="spatial", params=params), threat)
    found = attack(model, images, torch.zeros(1, dtype=torch.int64), keys=torch.zeros(1, dtype=torch.int64), seed=0)
    return bool(found.broken[0])


def test_a_quarter_turn_is_found_and_only_within_the_rotation() -> None:
    assert verdict(0, 4, SpatialThreat(rotation=90, translation=0))
    assert not verdict(0, 4, SpatialThreat(rotation=44, translation=0))


def test_a_shift_is_found_and_only_within_the_translation() -> None:
    assert verdict(1, 2, SpatialThreat(rotation=0, translation=0.4))
    assert not verdict(1, 2, SpatialThreat(rotation=0, translation=0.2))


def test_an_ascent_finds_what_lies_between_the_nodes_of_the_grid() -> None:
    threat = SpatialThreat(rotation=0, translation=0.3)
    assert not verdict(1, 1, threat, shifts=3)
    assert verdict(1, 1, threat, shifts=3, steps=8)
    assert verdict(1, 1, threat, shifts=2, random=200)


def test_the_grid_has_one_node_where_there_is_nothing_to_vary() -> None:
    attack = build_attack(Component(name="spatial"), SpatialThreat(rotation=30, translation=0))
    assert isinstance(attack, SpatialAttack)
    assert attack._grid().shape == (31, 3)
    attack = build_attack(Component(name="spatial"), SpatialThreat(rotation=0, translation=0.1))
    assert isinstance(attack, SpatialAttack)
    assert attack._grid().shape == (25, 3)
