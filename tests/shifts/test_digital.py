"""Colour and resolution, against colorsys, Pillow and plain formulas."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from robusteval.schema.types import Component
from robusteval.shifts.base import build_shift
from robusteval.shifts.tables import CONSTANTS


def corrupted(name: str, preset: str, severity: int, images: Tensor) -> np.ndarray:
    shift = build_shift(Component(name=name, params={"preset": preset, "severity": severity}))
    return shift(images, keys=torch.arange(len(images)), seed=0).numpy()


def assorted_colours() -> Tensor:
    """Random colours, greys, black and white: (1, 3, 24, 24)."""
    colours = np.random.default_rng(0).integers(0, 256, size=(576, 3), dtype=np.uint8)
    colours[:40] = np.arange(0, 240, 6)[:, None]
    colours[40], colours[41] = 0, 255
    return torch.from_numpy(colours.reshape(1, 24, 24, 3)).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("preset", CONSTANTS)
@pytest.mark.parametrize("name", ["brightness", "saturate"])
def test_colours_change_in_hue_saturation_and_value(name: str, preset: str, severity: int) -> None:
    images = assorted_colours()
    constant = CONSTANTS[preset][name][severity - 1]
    expected = []
    for colour in images[0].flatten(1).T.tolist():
        hue, saturation, value = colorsys.rgb_to_hsv(*(level / 255 for level in colour))
        if name == "brightness":
            value = min(value + constant, 1.0)
        else:
            saturation = min(max(saturation * constant[0] + constant[1], 0.0), 1.0)
        expected.append([255 * part for part in colorsys.hsv_to_rgb(hue, saturation, value)])
    found = corrupted(name, preset, severity, images)[0].reshape(3, -1).T.astype(np.int64)
    assert np.abs(found - np.floor(np.array(expected) + 1e-6)).max() <= 1
    assert (found != np.floor(np.array(expected) + 1e-6)).mean() < 0.01


@pytest.mark.parametrize("severity", [1, 4])
def test_contrast_pulls_towards_the_mean_of_each_channel(severity: int, small_scenes: Tensor) -> None:
    factor = CONSTANTS["cifar10-c"]["contrast"][severity - 1]
    pixels = small_scenes[:4].numpy().astype(np.float64)
    means = pixels.mean(axis=(2, 3), keepdims=True)
    found = corrupted("contrast", "cifar10-c", severity, small_scenes[:4]).astype(np.int64)
    assert np.abs(found - np.floor((pixels - means) * factor + means)).max() <= 1


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("preset", CONSTANTS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (224, 224), (37, 101), (150, 220)])
def test_pixelate_is_pillows_box_filter_bit_for_bit(
    preset: str, severity: int, height: int, width: int, large_scenes: Tensor
) -> None:
    factor = CONSTANTS[preset]["pixelate"][severity - 1]
    images = large_scenes[:1, :, :height, :width]
    picture = Image.fromarray(images[0].permute(1, 2, 0).contiguous().numpy())
    small = picture.resize((int(width * factor), int(height * factor)), Image.Resampling.BOX)
    expected = np.asarray(small.resize((width, height), Image.Resampling.BOX)).transpose(2, 0, 1)
    assert (corrupted("pixelate", preset, severity, images)[0] == expected).all()
