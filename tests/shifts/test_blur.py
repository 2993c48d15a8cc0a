"""Blurs against SciPy and against plain loops over the published formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from robusteval.schema.types import Component
from robusteval.shifts.base import build_shift
from robusteval.shifts.blur import disk
from robusteval.shifts.draws import Draws
from robusteval.shifts.filters import Correlation, Gaussian, axis_matrix, beyond, fast_length, gaussian_taps, whole
from robusteval.shifts.motion import Motion
from robusteval.shifts.tables import CONSTANTS

Array = np.ndarray


def corrupted(name: str, preset: str, severity: int, images: Tensor) -> Array:
    shift = build_shift(Component(name=name, params={"preset": preset, "severity": severity}))
    return shift(images, keys=torch.arange(len(images)), seed=5).numpy().astype(np.int64)


def assert_within_a_level(found: Array, exact: Array) -> None:
    """`exact` holds real grey levels that the published code cuts to whole ones."""
    assert np.abs(found - np.floor(np.clip(exact, 0, 255))).max() <= 1
    assert (found != np.floor(np.clip(exact, 0, 255) + 1e-6)).mean() < 0.02


@pytest.mark.parametrize("preset", CONSTANTS)
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_gaussian_blur_is_that_of_scipy(preset: str, severity: int, small_scenes: Tensor, large_scenes: Tensor) -> None:
    sigma = CONSTANTS[preset]["gaussian_blur"][severity - 1]
    for images in (small_scenes[:4], large_scenes[:1, :, :100, :150]):
        exact = ndimage.gaussian_filter(images.numpy().astype(np.float64), (0, 0, sigma, sigma), mode="nearest")
        assert_within_a_level(corrupted("gaussian_blur", preset, severity, images), exact)


@pytest.mark.parametrize("preset", CONSTANTS)
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_defocus_blur_correlates_with_the_disk(
    preset: str, severity: int, small_scenes: Tensor, large_scenes: Tensor
) -> None:
    kernel = disk(*CONSTANTS[preset]["defocus_blur"][severity - 1])
    for images in (small_scenes[:2], large_scenes[:1, :, :70, :90]):
        exact = ndimage.correlate(images.numpy().astype(np.float64), kernel[None, None], mode="mirror")
        assert_within_a_level(corrupted("defocus_blur", preset, severity, images), exact)


def test_matrix_and_transform_give_the_same_bits(small_scenes: Tensor) -> None:
    blur = Correlation(disk(8.0, 0.5))
    dense = blur._by_matrix(small_scenes[:3])
    blur._prepared.clear()
    assert torch.equal(dense, blur._by_transform(small_scenes[:3]))


def test_lowered_precision_of_matrix_products_changes_nothing(small_scenes: Tensor) -> None:
    expected = Gaussian(1.3)(small_scenes[:5]), Correlation(disk(4.0, 0.5))(small_scenes[:5])
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = Gaussian(1.3)(small_scenes[:5]), Correlation(disk(4.0, 0.5))(small_scenes[:5])
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(expected[0], found[0])
    assert torch.equal(expected[1], found[1])


@pytest.mark.parametrize("radius", [0.3, 1.5, 3.0, 8.0, 10.0])
def test_a_disk_is_symmetric_and_normalised_but_for_its_grid(radius: float) -> None:
    kernel = disk(radius, 0.5)
    assert kernel.shape == ((21, 21) if radius > 8 else (17, 17))
    assert np.allclose(kernel, kernel.T)
    assert np.allclose(kernel, kernel[::-1, ::-1])
    assert 1.0 - 1e-9 < kernel.sum() < 1.014


def test_flat_images_stay_flat_under_every_blur() -> None:
    images = torch.full((2, 3, 70, 70), 200, dtype=torch.uint8)
    for name in ("gaussian_blur", "defocus_blur", "zoom_blur", "motion_blur", "glass_blur"):
        assert set(np.unique(corrupted(name, "imagenet-c", 2, images))) == {200}


def one_motion_blur(image: Array, degrees: float, radius: int, sigma: float) -> Array:
    """The published loop, pixel by pixel, with clamped coordinates."""
    weights = np.array([math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)])
    weights /= weights.sum()
    _, height, width = image.shape
    blurred = np.zeros(image.shape)
    for i, weight in enumerate(weights):
        right = math.ceil(i * math.cos(math.radians(degrees)) - 0.5)
        down = math.ceil(i * math.sin(math.radians(degrees)) - 0.5)
        rows = [min(max(row + down, 0), height - 1) for row in range(height)]
        columns = [min(max(column + right, 0), width - 1) for column in range(width)]
        blurred += weight * image[:, rows][:, :, columns]
    return blurred


@pytest.mark.parametrize("degrees", [-45.0, -17.3, 0.0, 31.0, 45.0, -90.0, -134.9])
def test_motion_blur_is_the_loop_along_the_ray(degrees: float, small_scenes: Tensor) -> None:
    images, motion = small_scenes[:2], Motion(15, 8.0)
    found = motion(images, np.array([degrees, 10.0]))
    assert np.abs(found[0].numpy() - one_motion_blur(images[0].numpy(), degrees, 15, 8.0)).max() < 0.05
    assert np.abs(found[1].numpy() - one_motion_blur(images[1].numpy(), 10.0, 15, 8.0)).max() < 0.05


def test_motion_by_gathers_is_motion_by_views(small_scenes: Tensor) -> None:
    motion, degrees = Motion(10, 3.0), np.array([-40.0, 3.0, 44.0])
    pixels = small_scenes[:3].to(torch.float32)
    right, down = (motion._offsets([turn(math.radians(angle)) for angle in degrees]) for turn in (math.cos, math.sin))
    views = torch.stack([motion._along_views(*parts) for parts in zip(pixels, right, down, strict=True)])
    assert torch.equal(motion._along_gathers(pixels, right, down), views)


def test_angles_of_motion_blur_fill_ninety_degrees() -> None:
    degrees = -45.0 + 90.0 * Draws(torch.arange(500), 0, "shift/motion_blur-3").uniform(1, "angle")[:, 0]
    assert -45 <= degrees.min() < -44
    assert 44 < degrees.max() < 45


def one_zoom(channel: Array, factor: float) -> Array:
    side = channel.shape[0]
    cut = math.ceil(side / factor)
    first = (side - cut) // 2
    zoomed = ndimage.zoom(channel[first : first + cut, first : first + cut], factor, order=1)
    trimmed = (zoomed.shape[0] - side) // 2
    return zoomed[trimmed : trimmed + side, trimmed : trimmed + side]


@pytest.mark.parametrize(("preset", "side"), [("imagenet-c", 96), ("cifar10-c", 32), ("tiny-imagenet-c", 64)])
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_zoom_blur_is_the_mean_of_scipys_zooms(preset: str, side: int, severity: int, large_scenes: Tensor) -> None:
    images = large_scenes[:1, :, :side, :side]
    factors = np.arange(1, *CONSTANTS[preset]["zoom_blur"][severity - 1])
    channels = images[0].numpy().astype(np.float64)
    exact = [
        (channel + sum(one_zoom(channel, factor) for factor in factors)) / (len(factors) + 1) for channel in channels
    ]
    assert_within_a_level(corrupted("zoom_blur", preset, severity, images)[0], np.stack(exact))


@pytest.mark.parametrize(
    ("preset", "counts"), [("imagenet-c", (12, 16, 11, 13, 11)), ("cifar10-c", (7, 12, 16, 21, 26))]
)
def test_the_number_of_zooms_is_that_of_the_published_ranges(preset: str, counts: tuple[int, ...]) -> None:
    """One less than the published denominators, which count the image itself."""
    for severity, count in enumerate(counts, start=1):
        shift = build_shift(Component(name="zoom_blur", params={"preset": preset, "severity": severity}))
        assert len(shift.factors) == count


@pytest.mark.parametrize(
    ("border", "mode"), [("replicate", "nearest"), ("reflect", "mirror"), ("symmetric", "reflect")]
)
def test_borders_are_those_of_scipy(border: str, mode: str) -> None:
    signal = np.array([3.0, 1.0, 4.0, 1.0, 5.0])
    taps = np.array([1, 0, 2, 0, 0, 0, 7])
    assert (axis_matrix(taps, 5, border) @ signal == ndimage.correlate1d(signal, taps.astype(float), mode=mode)).all()
    far = np.arange(-23, 40)
    padded = np.pad(np.arange(5), 40, mode={"nearest": "edge", "mirror": "reflect", "reflect": "symmetric"}[mode])
    assert (beyond(far, 5, border) == padded[far + 40]).all()


def test_whole_weights_keep_their_sum_and_stay_within_one_unit() -> None:
    for sigma in (0.4, 1.0, 6.0):
        weights = gaussian_taps(sigma)
        assert whole(weights).sum() == 2**16
        assert np.abs(whole(weights) - weights * 2**16).max() < 1


@pytest.mark.parametrize(("least", "length"), [(1, 1), (7, 8), (240, 240), (241, 243), (251, 256)])
def test_a_fast_length_has_small_prime_factors(least: int, length: int) -> None:
    assert fast_length(least) == length
