from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from robusteval.schema.types import Component
from robusteval.shifts.base import build_shift
from robusteval.shifts.draws import Draws
from robusteval.shifts.tables import CONSTANTS


def one_elastic(image: np.ndarray, preset: str, severity: int, draws: Draws) -> np.ndarray:
    """The published recipe on one image (3, H, W), with SciPy's interpolation."""
    alpha, sigma, jitter = CONSTANTS[preset]["elastic_transform"][severity - 1]
    side = image.shape[1]
    rows, columns = np.mgrid[:side, :side].astype(np.float64)
    centre, leg = side // 2, side // 3
    before = np.array([[centre + leg, centre + leg], [centre + leg, centre - leg], [centre - leg, centre - leg]])
    after = before + jitter * (2 * draws.uniform(6, "affine").reshape(3, 2) - 1)
    inverse = np.linalg.solve(np.column_stack([after, np.ones(3)]), before.astype(np.float64)).T
    across, down = inverse[:, :2] @ np.stack([columns.ravel(), rows.ravel()]) + inverse[:, 2:]
    warped = [
        ndimage.map_coordinates(channel.astype(np.float64), [down, across], order=1, mode="mirror") for channel in image
    ]
    warped = [channel.reshape(side, side) for channel in warped]
    if alpha == 0:
        return np.stack(warped)
    noise = (draws.halfwords((2, side, side), "displacement")[0].numpy() + 0.5) / 2**15
    right, below = (alpha * ndimage.gaussian_filter(field, sigma, mode="reflect", truncate=3) for field in noise)
    places = [rows + below, columns + right]
    return np.stack([ndimage.map_coordinates(channel, places, order=1, mode="reflect") for channel in warped])


@pytest.mark.parametrize("preset", CONSTANTS)
@pytest.mark.parametrize("severity", [1, 2, 4, 5])
def test_elastic_transform_is_the_published_recipe_with_our_draws(
    preset: str, severity: int, large_scenes: Tensor
) -> None:
    images, keys = large_scenes[:1, :, :96, :96], torch.tensor([5])
    shift = build_shift(Component(name="elastic_transform", params={"preset": preset, "severity": severity}))
    found = shift(images, keys=keys, seed=1)[0].numpy().astype(np.int64)
    draws = Draws(keys, 1, f"shift/elastic_transform-{severity}")
    expected = np.floor(np.clip(one_elastic(images[0].numpy(), preset, severity, draws) + 1e-3, 0, 255))
    assert (np.abs(found - expected) <= 1).mean() > 0.999
