"""Fog, snow and frost against the published formulas, fed with our draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from robusteval.schema.types import Component
from robusteval.shifts.base import build_shift, resolve_shift
from robusteval.shifts.draws import Draws, as_numbers, normal_quantiles
from robusteval.shifts.fog import plasma
from robusteval.shifts.frost import ICES, frost_texture
from robusteval.shifts.tables import CONSTANTS

KEYS = torch.tensor([11, -4])


def corrupted(name: str, preset: str, severity: int, images: Tensor) -> np.ndarray:
    shift = build_shift(Component(name=name, params={"preset": preset, "severity": severity}))
    return shift(images, keys=KEYS[: len(images)], seed=2).numpy().astype(np.int64)


def one_cloud(noise: np.ndarray, decay: float) -> np.ndarray:
    """Diamond-square on a torus point by point, from numbers in (-1, 1)."""
    side = len(noise)
    cloud, step, wibble = np.zeros((side, side)), side, 100.0
    while step >= 2:
        half = step // 2
        for row in range(half, side, step):
            for column in range(half, side, step):
                corners = [(row + a, column + b) for a in (-half, half) for b in (-half, half)]
                mean = sum(cloud[a % side, b % side] for a, b in corners) / 4
                cloud[row, column] = mean + wibble**2 * noise[row, column]
        edges = [(row, column) for row in range(0, side, half) for column in range(0, side, half)]
        for row, column in edges:
            if (row // half + column // half) % 2:
                near = [(row - half, column), (row + half, column), (row, column - half), (row, column + half)]
                mean = sum(cloud[a % side, b % side] for a, b in near) / 4
                cloud[row, column] = mean + wibble**2 * noise[row, column]
        step, wibble = half, wibble / decay
    cloud -= cloud.min()
    return cloud / cloud.max()


@pytest.mark.parametrize("decay", [1.4, 3.0])
def test_the_cloud_is_diamond_square_point_by_point(decay: float) -> None:
    halfwords = Draws(KEYS, 0, "test").halfwords((32, 32), "cloud")
    found = plasma(halfwords, decay).numpy()
    for cloud, own in zip(found, halfwords.numpy(), strict=True):
        assert np.abs(cloud - one_cloud((own + 0.5) / 2**15, decay)).max() < 1e-5


@pytest.mark.parametrize(("preset", "severity"), [("cifar10-c", 1), ("cifar10-c", 5), ("imagenet-c", 3)])
def test_fog_is_the_formula_over_the_cloud(preset: str, severity: int, small_scenes: Tensor) -> None:
    images = small_scenes[:2]
    amount, decay = CONSTANTS[preset]["fog"][severity - 1]
    halfwords = Draws(KEYS, 2, f"shift/fog-{severity}").halfwords((32, 32), "cloud")
    cloud = plasma(halfwords, decay).numpy().astype(np.float64)[:, None]
    pixels = images.numpy() / 255
    most = pixels.max(axis=(1, 2, 3), keepdims=True)
    expected = np.floor(np.clip((pixels + amount * cloud) * most / (most + amount), 0, 1) * 255)
    assert np.abs(corrupted("fog", preset, severity, images) - expected).max() <= 1


@pytest.mark.parametrize(("preset", "severity"), [("cifar10-c", 2), ("cifar10-c", 5), ("imagenet-c", 3)])
def test_snow_is_the_published_recipe_with_our_draws(preset: str, severity: int, small_scenes: Tensor) -> None:
    image = small_scenes[:1]
    mean, deviation, factor, threshold, radius, sigma, mix = CONSTANTS[preset]["snow"][severity - 1]
    draws = Draws(KEYS[:1], 2, f"shift/snow-{severity}")
    cut = math.ceil(32 / factor)
    ranks = as_numbers(draws.halfwords((1, cut, cut), "flakes"))[0, 0].numpy()
    layer = ndimage.zoom((mean + deviation * normal_quantiles())[ranks], factor, order=1)
    trimmed = (len(layer) - 32) // 2
    layer = layer[trimmed : trimmed + 32, trimmed : trimmed + 32]
    layer = np.floor(np.clip(np.where(layer < threshold, 0, layer), 0, 1) * 255)
    angle = math.radians(-135 + 90 * draws.uniform(1, "wind")[0, 0])
    weights = np.exp(-0.5 * (np.arange(2 * radius + 1) / sigma) ** 2)
    blown = np.zeros((32, 32))
    for step, weight in enumerate(weights / weights.sum()):
        rows = np.clip(np.arange(32) + math.ceil(step * math.sin(angle) - 0.5), 0, 31)
        columns = np.clip(np.arange(32) + math.ceil(step * math.cos(angle) - 0.5), 0, 31)
        blown += weight * layer[rows][:, columns]
    flakes = np.rint(blown)
    pixels = image[0].numpy().astype(np.float64)
    grey = 0.299 * pixels[0] + 0.587 * pixels[1] + 0.114 * pixels[2]
    white = mix * pixels + (1 - mix) * np.maximum(pixels, 1.5 * grey + 127.5)
    expected = np.floor(np.clip(white + flakes + np.rot90(flakes, 2), 0, 255))
    difference = np.abs(corrupted("snow", preset, severity, image)[0] - expected)
    assert (difference <= 1).mean() > 0.995
    assert difference.max() <= 4


def test_frost_lays_one_crop_of_one_texture_over_the_image() -> None:
    black = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    found = corrupted("frost", "cifar10-c", 3, black)
    textures = [frost_texture(ice, str(number), 80, 0.2) for number, ice in enumerate(ICES)]
    for image in found:
        crops = [
            np.floor(0.4 * texture[:, top : top + 32, left : left + 32].astype(np.float64) + 1e-3)
            for texture in textures
            for top in range(48)
            for left in range(48)
        ]
        assert sum((image == crop).all() for crop in crops) == 1


@pytest.mark.parametrize("number", range(len(ICES)))
def test_a_texture_has_the_colour_and_contrast_that_it_states(number: int) -> None:
    ice = ICES[number]
    texture = frost_texture(ice, str(number), 240, 1.0).astype(np.float64)
    assert np.abs(texture.mean(axis=(1, 2)) - ice.colour).max() < 2
    assert texture.std(axis=(1, 2)).max() == pytest.approx(ice.contrast, rel=0.1)


def test_a_record_says_that_the_textures_are_procedural() -> None:
    resolved = resolve_shift(Component(name="frost", params={"preset": "cifar10-c"}))
    assert resolved.params["textures"] == "procedural"


def test_examples_get_different_crops() -> None:
    grey = torch.full((2, 3, 32, 32), 90, dtype=torch.uint8)
    first, second = corrupted("frost", "cifar10-c", 5, grey)
    assert (first != second).mean() > 0.5
