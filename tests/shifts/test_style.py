from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from robusteval.schema.types import Component
from robusteval.shifts.base import build_shift
from robusteval.shifts.draws import Draws
from robusteval.shifts.style import channel_moments


def styled(name: str, severity: int, images: Tensor) -> Tensor:
    shift = build_shift(Component(name=name, params={"severity": severity}))
    return shift(images, keys=torch.arange(len(images)), seed=0)


def test_moments_are_mean_and_deviation_of_each_channel(small_scenes: Tensor) -> None:
    mean, deviation = channel_moments(small_scenes[:5])
    pixels = small_scenes[:5].numpy().astype(np.float64)
    assert np.allclose(mean.numpy(), pixels.mean(axis=(2, 3), keepdims=True))
    assert np.allclose(deviation.numpy(), pixels.std(axis=(2, 3), keepdims=True))


def test_full_strength_gives_an_image_the_statistics_of_its_style(small_scenes: Tensor) -> None:
    images = small_scenes[:16]
    uniform = Draws(torch.arange(16), 0, "shift/channel-statistics-5").uniform(6, "style").reshape(16, 2, 3)
    mean, deviation = (part[:, :, 0, 0].numpy() for part in channel_moments(styled("channel-statistics", 5, images)))
    # Clipping moves them a little where the style is bright or strong.
    assert np.median(np.abs(mean - (64 + 128 * uniform[:, 0]))) < 2
    assert np.median(np.abs(deviation - (24 + 48 * uniform[:, 1]))) < 2


@pytest.mark.parametrize(("severity", "levels"), [(1, 12), (3, 5), (5, 2)])
def test_posterised_channels_have_that_many_levels(severity: int, levels: int) -> None:
    ramp = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(1, 3, 1, 1)
    found = torch.unique(styled("posterise", severity, ramp))
    assert len(found) == levels
    assert (int(found[0]), int(found[-1])) == (0, 255)


def test_a_sketch_is_white_where_nothing_changes_and_dark_along_edges() -> None:
    image = torch.full((1, 3, 20, 20), 60, dtype=torch.uint8)
    image[:, :, :, 10:] = 200
    found = styled("sketch", 5, image)
    assert (found[:, :, :, [0, 5, 15, 19]] == 255).all()
    assert (found[:, :, :, [9, 10]] < 50).all()


def test_a_colour_cast_multiplies_channels_by_gains_whose_product_is_one() -> None:
    grey = torch.full((40, 3, 8, 8), 64, dtype=torch.uint8)
    gains = styled("colour-cast", 3, grey)[:, :, 0, 0].to(torch.float64) / 64
    assert torch.allclose(gains.prod(dim=1), torch.ones(40, dtype=torch.float64), atol=0.06)
    assert float(gains.max()) <= 2**0.6
    assert len(torch.unique(gains.argmax(dim=1))) == 3
