from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from robusteval.schema.types import Component
from robusteval.shifts.base import build_shift
from robusteval.shifts.jpeg import on_device, transform
from robusteval.shifts.tables import CONSTANTS


def through_pillow(images: Tensor, quality: int) -> np.ndarray:
    found = []
    for image in images.permute(0, 2, 3, 1).contiguous().numpy():
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=quality)
        found.append(np.asarray(Image.open(stream)))
    return np.stack(found).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("preset", CONSTANTS)
@pytest.mark.parametrize("severity", [1, 5])
def test_replay_is_pillow(preset: str, severity: int, small_scenes: Tensor) -> None:
    shift = build_shift(Component(name="jpeg_compression", params={"preset": preset, "severity": severity}))
    found = shift(small_scenes[:3], keys=torch.arange(3), seed=0)
    quality = CONSTANTS[preset]["jpeg_compression"][severity - 1]
    assert (found.numpy() == through_pillow(small_scenes[:3], quality)).all()


@pytest.mark.parametrize("quality", [7, 10, 25, 50, 65, 80, 100])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 48), (61, 35), (224, 224)])
def test_the_steps_on_the_device_are_those_of_libjpeg(
    quality: int, height: int, width: int, large_scenes: Tensor
) -> None:
    images = large_scenes[:2, :, :height, :width]
    assert (on_device(images, quality).numpy() == through_pillow(images, quality)).all()


def test_extreme_colours_survive_the_device_as_they_do_libjpeg() -> None:
    corners = torch.tensor([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], dtype=torch.uint8)
    order = torch.randint(0, 8, (1, 48, 48), generator=torch.Generator().manual_seed(0))
    images = corners[order].permute(0, 3, 1, 2).contiguous()
    assert (on_device(images, 60).numpy() == through_pillow(images, 60)).all()


def test_the_whole_transform_is_nearly_orthogonal() -> None:
    basis = transform() / 2**13
    assert np.abs(basis @ basis.T - 8 * np.eye(8)).max() < 2e-3
