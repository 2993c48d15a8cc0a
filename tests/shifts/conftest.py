"""Images that look like photographs to a filter: smooth areas, edges, bright and dark parts, correlated colours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor


def scenes(count: int, side: int, seed: int = 0) -> Tensor:
    """Images (count, 3, side, side) uint8 with the 1/f spectrum of natural scenes and some flat shapes."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    frequencies = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    spectrum = 1.0 / np.maximum(frequencies, 1.0 / side) ** 1.3
    rows, columns = np.mgrid[:side, :side] / side
    images = np.empty((count, 3, side, side), dtype=np.uint8)
    for image in images:
        shared = generator.normal(size=(side, side))
        for channel in range(3):
            noise = 0.8 * shared + 0.6 * generator.normal(size=(side, side))
            field = np.fft.irfft2(np.fft.rfft2(noise) * spectrum, s=(side, side))
            level = generator.uniform(90, 150) + generator.uniform(25, 50) * (field - field.mean()) / field.std()
            image[channel] = np.clip(level, 0, 255)
        for _ in range(3):
            centre, radius = generator.uniform(0.2, 0.8, size=2), generator.uniform(0.05, 0.2)
            inside = np.hypot(rows - centre[0], columns - centre[1]) < radius
            image[:, inside] = generator.integers(0, 256, size=3)[:, None]
    return torch.from_numpy(images)


@pytest.fixture(scope="session")
def small_scenes() -> Tensor:
    """(64, 3, 32, 32) uint8."""
    return scenes(64, 32)


@pytest.fixture(scope="session")
def large_scenes() -> Tensor:
    """(3, 3, 224, 224) uint8."""
    return scenes(3, 224, seed=1)


@pytest.fixture(scope="session")
def scenes_of() -> dict[str, Tensor]:
    """Images to corrupt with each preset, smaller than its own where that saves time."""
    return {"cifar10-c": scenes(192, 32), "tiny-imagenet-c": scenes(64, 64), "imagenet-c": scenes(40, 96)}
