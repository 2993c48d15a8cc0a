"""The same picture in two places is found; different pictures are not taken for one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from robusteval.data.imageset import ImageSet
from robusteval.data.leaks import Fingerprints, Twin, find_twins, fingerprint

Images = NDArray[np.uint8]


def smooth(seed: int, n: int = 1, side: int = 48) -> Images:
    """Random pictures that change over a sixth of their side."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 6, 6, 3), dtype=np.uint8)
    fine = [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in coarse]
    return np.stack(fine).transpose(0, 3, 1, 2)


def images(pixels: Images, domain: str, labels: list[int] | None = None) -> ImageSet:
    ids = tuple(f"{domain}/{index}" for index in range(len(pixels)))
    targets = np.array(labels or [0] * len(pixels), dtype=np.int64)
    return ImageSet(np.ascontiguousarray(pixels), targets, ids, ids, (domain,) * len(ids), ("a", "b"))


def twins(*parts: tuple[ImageSet, str]) -> list[Twin]:
    prints = [fingerprint(part, split, lambda done, total: None) for part, split in parts]
    return list(find_twins(Fingerprints.join(prints)))


def changed(pixels: Images, how: str) -> Images:
    noisy = pixels.astype(np.int16)
    if how == "noise":
        noisy = noisy + np.random.default_rng(1).integers(-6, 7, noisy.shape)
    elif how == "brightness":
        noisy = noisy // 2 + 60
    elif how == "size":
        return pixels[:, :, ::2, ::2]
    return np.clip(noisy, 0, 255).astype(np.uint8)


def test_equal_pixels_in_two_domains_are_exact_twins() -> None:
    pixels = smooth(0, 5)
    found = twins((images(pixels, "photo"), "train"), (images(pixels[2:3], "sketch", [1]), "test"))
    (twin,) = found
    assert twin.exact
    assert {twin.first, twin.second} == {"photo/2", "sketch/0"}
    assert set(twin.places) == {("photo", "train"), ("sketch", "test")}
    assert not twin.same_label


@pytest.mark.parametrize("how", ["noise", "brightness", "size"])
def test_a_changed_copy_is_a_near_twin(how: str) -> None:
    pixels = smooth(3, 4)
    (twin,) = twins((images(pixels, "photo"), "train"), (images(changed(pixels[1:2], how), "art"), "test"))
    assert {twin.first, twin.second} == {"photo/1", "art/0"}
    assert not twin.exact
    assert twin.similarity >= 0.98
    assert twin.same_label


def test_different_pictures_are_not_twins() -> None:
    assert twins((images(smooth(5, 40), "photo"), "train"), (images(smooth(6, 40), "art"), "test")) == []


def test_flat_drawings_are_not_taken_for_one() -> None:
    pixels = np.full((2, 3, 48, 48), 255, dtype=np.uint8)
    pixels[0, :, 10, 5:40] = 0
    pixels[1, :, 5:40, 30] = 0
    assert twins((images(pixels[:1], "photo"), "train"), (images(pixels[1:], "sketch"), "test")) == []


def test_within_one_place_only_equal_pixels_count() -> None:
    pixels = smooth(7, 2)
    both = np.concatenate([pixels, pixels[:1], changed(pixels[1:], "noise")])
    (twin,) = twins((images(both, "photo"), "train"))
    assert (twin.first, twin.second) == ("photo/0", "photo/2")
    assert twin.exact


def test_one_example_in_two_splits_is_no_pair() -> None:
    part = images(smooth(8, 3), "photo")
    assert twins((part, "validation"), (part, "test")) == []


@settings(max_examples=8)
@given(shift=st.integers(0, 1300))
def test_pairs_are_found_wherever_they_stand(shift: int) -> None:
    n = 1400
    rng = np.random.default_rng(shift)
    bits = rng.choice(np.array([-1.0, 1.0], dtype=np.float32), (n, 64))
    grey = rng.normal(size=(n, 4)).astype(np.float32)
    grey /= np.linalg.norm(grey, axis=1, keepdims=True)
    first, second = shift, n - 1
    bits[second], grey[second] = bits[first], grey[first]
    places: list[Any] = [("a", "train")] * n
    places[second] = ("b", "test")
    prints = Fingerprints(
        tuple(map(str, range(n))),
        np.zeros(n, dtype=np.int64),
        tuple(places),
        tuple(str(index).encode() for index in range(n)),
        bits,
        grey,
    )
    assert [(twin.first, twin.second) for twin in find_twins(prints)] == [(str(first), str(second))]
