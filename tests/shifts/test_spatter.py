from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from robusteval.schema.types import Component
from robusteval.shifts.base import build_shift
from robusteval.shifts.rims import distance_to, gradients, rim_pixels
from robusteval.shifts.spatter import water_cover


def drops(seed: int, count: int = 3, side: int = 40) -> np.ndarray:
    fields = np.random.default_rng(seed).normal(0.65, 0.3, size=(count, side, side))
    smooth = ndimage.gaussian_filter(fields, (0, 2, 2))
    return (np.where(smooth < 0.68, 0, np.clip(smooth, 0, 1)) * 255).astype(np.uint8)


@given(st.integers(0, 2**31), st.integers(1, 20))
def test_distances_are_euclidean_up_to_their_limit(seed: int, most: int) -> None:
    shapes = np.random.default_rng(seed).random((2, 17, 23)) < 0.01
    shapes[:, 3, 4] = True
    exact = np.stack([ndimage.distance_transform_edt(~shape) for shape in shapes])
    assert np.allclose(distance_to(shapes, most), np.minimum(exact, most), atol=1e-5)


def test_without_a_shape_everything_is_far() -> None:
    assert (distance_to(np.zeros((1, 5, 5), dtype=np.bool_), 20) == 20).all()


def test_gradients_are_sobels() -> None:
    image = drops(0)
    right, down = gradients(image)
    for own, across, along in zip(image.astype(np.float64), right, down, strict=True):
        assert (across == ndimage.sobel(own, axis=1, mode="nearest")).all()
        assert (along == ndimage.sobel(own, axis=0, mode="nearest")).all()


@pytest.mark.parametrize("seed", range(4))
def test_rims_are_those_of_opencv(seed: int) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is the reference of this test")
    images = drops(seed)
    for image, rims in zip(images, rim_pixels(images), strict=True):
        assert ((cv2.Canny(image, 50, 150) > 0) == rims).all()


def test_a_square_has_a_thin_closed_rim() -> None:
    image = np.zeros((1, 20, 20), dtype=np.uint8)
    image[0, 5:15, 5:15] = 255
    rims = rim_pixels(image)[0]
    assert 30 <= rims.sum() <= 44
    inside, count = ndimage.label(~rims)
    assert count == 2
    assert inside[0, 0] != inside[10, 10]


def test_rims_of_one_image_do_not_reach_into_the_next() -> None:
    images = drops(1)
    alone = np.concatenate([rim_pixels(images[place : place + 1]) for place in range(len(images))])
    assert (rim_pixels(images) == alone).all()


def test_water_lies_on_drops_only_and_is_as_strong_as_said() -> None:
    images = drops(2)
    cover = water_cover(images, 0.6)
    assert cover.max(axis=(1, 2)) == pytest.approx([0.6] * 3)
    assert (cover[images == 0] == 0).all()
    assert (water_cover(np.zeros((1, 9, 9), dtype=np.uint8), 0.6) == 0).all()


def test_mud_covers_with_brown_and_water_brightens(small_scenes: Tensor) -> None:
    images = small_scenes[:8]
    for severity, brighter in ((2, True), (5, False)):
        shift = build_shift(Component(name="spatter", params={"preset": "imagenet-c", "severity": severity}))
        found = shift(images, keys=torch.arange(8), seed=0).to(torch.int64)
        change = (found - images).sum(dim=1)
        touched = change != 0
        assert 0.02 < float(touched.float().mean()) < 0.9
        assert (float(change[touched].float().mean()) > 0) is brighter
