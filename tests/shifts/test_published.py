"""Deterministic corruptions against the published package; random ones against it in distribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robusteval.schema.types import Component
from robusteval.shifts.base import build_shift

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

DETERMINISTIC = [
    "defocus_blur",
    "gaussian_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "saturate",
    "pixelate",
    "jpeg_compression",
]


def ours(name: str, severity: int, images: Tensor) -> np.ndarray[Any, Any]:
    shift = build_shift(Component(name=name, params={"preset": "imagenet-c", "severity": severity}))
    found = shift(images, keys=torch.arange(len(images)), seed=0)
    return found.permute(0, 2, 3, 1).numpy().astype(np.int64)


def theirs(corrupt: Callable[..., Any], name: str, severity: int, images: Tensor) -> np.ndarray[Any, Any]:
    arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
    return np.stack([corrupt(one, severity=severity, corruption_name=name) for one in arrays]).astype(np.int64)


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_deterministic_corruption_is_within_one_grey_level(
    imagecorruptions: Callable[..., Any], name: str, severity: int, large_scenes: Tensor, small_scenes: Tensor
) -> None:
    for images in (large_scenes[:1], small_scenes[:8]):
        difference = ours(name, severity, images) - theirs(imagecorruptions, name, severity, images)
        assert np.abs(difference).max() <= 1
    if name in ("pixelate", "jpeg_compression"):
        assert np.abs(difference).max() == 0


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "snow", "fog"])
def test_a_random_corruption_moves_an_image_as_far_as_the_published_one(
    imagecorruptions: Callable[..., Any], name: str, small_scenes: Tensor
) -> None:
    """Mean and mean square of the change over 64 images, within 12 % of each other."""
    np.random.seed(0)
    images = small_scenes.permute(0, 2, 3, 1).numpy().astype(np.int64)
    moved = [
        change - images for change in (ours(name, 3, small_scenes), theirs(imagecorruptions, name, 3, small_scenes))
    ]
    squares = [float((change**2).mean()) for change in moved]
    assert squares[0] == pytest.approx(squares[1], rel=0.12)
    assert abs(moved[0].mean() - moved[1].mean()) < 0.12 * squares[1] ** 0.5


def test_spatter_covers_as_much_as_the_published_one(
    imagecorruptions: Callable[..., Any], large_scenes: Tensor
) -> None:
    np.random.seed(0)
    for severity in (2, 4):
        images = large_scenes.permute(0, 2, 3, 1).numpy().astype(np.int64)
        touched = [
            float((change != images).any(axis=3).mean())
            for change in (
                ours("spatter", severity, large_scenes),
                theirs(imagecorruptions, "spatter", severity, large_scenes),
            )
        ]
        assert touched[0] == pytest.approx(touched[1], rel=0.25)
