"""Procedural domains: exact, seeded by example, and what their names promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from robusteval.data.domains import DOMAINS, render, uniform_draws, upsample

SOURCES = tuple(f"s{index}" for index in range(12))


def strokes(n: int = 12) -> np.ndarray:
    """Smooth bright blobs away from the border."""
    rng = np.random.default_rng(0)
    coarse = np.zeros((n, 8, 8))
    coarse[:, 2:6, 2:6] = rng.integers(0, 17, size=(n, 4, 4)) / 16
    return upsample(coarse)


@pytest.mark.parametrize("name", DOMAINS)
@settings(max_examples=10, deadline=None)
@given(positions=st.lists(st.integers(0, 11), min_size=1, max_size=6, unique=True))
def test_an_example_is_bit_identical_in_any_batch(name: str, positions: list[int]) -> None:
    ink = strokes()
    whole = render(name, ink, SOURCES, revision="r")
    part = render(name, ink[positions], [SOURCES[position] for position in positions], revision="r")
    assert np.array_equal(part, whole[positions])


@pytest.mark.parametrize("name", sorted(set(DOMAINS) - {"upright"}))
def test_every_domain_differs_from_the_upright_one(name: str) -> None:
    ink = strokes()
    upright, other = (render(domain, ink, SOURCES, revision="r") for domain in ("upright", name))
    difference = np.abs(upright.astype(int) - other.astype(int)).mean(axis=(1, 2, 3))
    assert difference.min() > 1.0


@pytest.mark.parametrize("name", [name for name, domain in DOMAINS.items() if domain.draws])
def test_draws_follow_source_and_revision(name: str) -> None:
    ink = np.repeat(strokes(1), 8, axis=0)
    first = render(name, ink, SOURCES[:8], revision="r")
    assert len({image.tobytes() for image in first}) > 1
    assert not np.array_equal(first, render(name, ink, SOURCES[:8], revision="other"))


def test_draws_are_uniform_and_pinned() -> None:
    draws = uniform_draws("scope", [f"{index}" for index in range(200)], 50)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.01
    assert uniform_draws("scope", ["a"], 2)[0].tolist() == uniform_draws("scope", ["b", "a"], 5)[1, :2].tolist()


def test_upsampling_interpolates_between_pixel_centres() -> None:
    ramp = np.tile(np.arange(4.0), (1, 4, 1))
    expected = [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]
    assert upsample(ramp)[0, 3].tolist() == expected
    assert upsample(ramp.transpose(0, 2, 1))[0, :, 3].tolist() == expected


def test_rotation_agrees_with_scipy() -> None:
    ink = strokes(1)
    draws = np.array([[0.0, 0.5]])
    ours = DOMAINS["rotated"].render(ink, draws)[0, :, :, 0]
    angle = np.radians(45.0)
    matrix = 1.1 * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    offset = np.full(2, 7.5) - matrix @ np.full(2, 7.5)
    theirs = ndimage.affine_transform(ink[0], matrix, offset=offset, order=1, mode="constant")
    assert np.allclose(ours, theirs, atol=1e-9)


def test_inversion_is_the_complement() -> None:
    ink = strokes()
    both = [render(name, ink, SOURCES, revision="r").astype(int) for name in ("upright", "inverted")]
    assert np.abs(both[0] + both[1] - 255).max() <= 1


@pytest.mark.parametrize(("draw", "passes"), [(0.0, 3), (0.99, 6)])
def test_blur_has_the_stated_standard_deviation(draw: float, passes: int) -> None:
    point = np.zeros((1, 33, 33))
    point[0, 16, 16] = 1.0
    blurred = DOMAINS["blurred"].render(point, np.array([[draw]]))[0, :, :, 0]
    offsets = np.arange(33) - 16
    assert blurred.sum() == pytest.approx(1.0)
    for axis in (0, 1):
        assert (blurred.sum(axis=axis) * offsets**2).sum() == pytest.approx(passes / 2)


def test_strokes_get_thinner_or_thicker() -> None:
    ink = np.zeros((1, 16, 16))
    ink[0, 4:12, 6:10] = 1.0
    area = {draw: (DOMAINS["stroke"].render(ink, np.array([[draw]]))[0, :, :, 0] > 0.5).sum() for draw in (0.0, 0.9)}
    assert area[0.0] == 6 * 2
    assert area[0.9] == 8 * 4 + 2 * (8 + 4)


def test_coloured_ink_stands_out_from_its_ground() -> None:
    ink = np.zeros((200, 4, 4))
    ink[:, 1:3, 1:3] = 1.0
    images = render("coloured", ink, [str(index) for index in range(200)], revision="r").astype(float) / 255
    luminance = np.tensordot(np.array([0.299, 0.587, 0.114]), images, axes=(0, 1))
    assert np.abs(luminance[:, 0, 0] - luminance[:, 1, 1]).min() > 0.39


def test_an_occluder_covers_a_rectangle_of_one_colour() -> None:
    ink = np.zeros((50, 16, 16))
    images = render("occluded", ink, [str(index) for index in range(50)], revision="r")
    for image in images:
        covered = image.any(axis=0)
        rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
        assert covered.sum() == len(rows) * len(columns)
        assert 4 <= len(rows) <= 9
        assert 4 <= len(columns) <= 9
        assert len(np.unique(image[:, covered], axis=1).T) == 1
