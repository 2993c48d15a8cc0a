from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from robusteval.data import imageset, pixel_cache
from robusteval.data.batches import DeviceSet
from robusteval.data.computed import ComputedImages
from robusteval.data.image_folder import ImageFolder, ImageFolderParams
from robusteval.data.imageset import ImageSet

CPU = torch.device("cpu")


class Inverted(ComputedImages):
    """The photographic negative of an array, and how many images were asked for."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array, self.asked = array, 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def compute(self, positions: NDArray[np.int64], device: torch.device) -> Tensor:
        self.asked += len(positions)
        return torch.from_numpy(255 - self.array[positions]).to(device)


def pixels(n: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 4, 4), dtype=np.uint8)


def image_set(images: NDArray[np.uint8] | ComputedImages, name: str) -> ImageSet:
    ids = tuple(f"{name}-{index}" for index in range(len(images)))
    labels = np.arange(len(images), dtype=np.int64) % 2
    return ImageSet(images, labels, ids, ids, (name,) * len(images), ("a", "b"))


@pytest.mark.parametrize("resident_bytes", [0, 2**30])
def test_batches_of_computed_images_are_those_of_the_same_stored_images(resident_bytes: int) -> None:
    array = pixels(600)
    computed = DeviceSet(image_set(Inverted(array), "x"), resident_bytes=resident_bytes)
    stored = DeviceSet(image_set(255 - array, "x"))
    for ours, theirs in zip(computed.in_order(128), stored.in_order(128), strict=True):
        assert torch.equal(ours.images, theirs.images)
    where = torch.tensor([599, 3, 3, 0])
    assert torch.equal(computed.batch(where).images, stored.batch(where).images)
    order = (batch.images for batch in computed.shuffled(64, seed=1, epoch=2))
    assert all(torch.equal(a, b.images) for a, b in zip(order, stored.shuffled(64, seed=1, epoch=2), strict=True))


def test_sets_beyond_the_limit_are_computed_batch_by_batch_and_smaller_ones_once() -> None:
    streamed, kept = Inverted(pixels(300)), Inverted(pixels(300))
    large = DeviceSet(image_set(streamed, "x"), resident_bytes=1)
    assert streamed.asked == 0
    large.batch(slice(0, 10))
    assert streamed.asked == 10
    small = DeviceSet(image_set(kept, "x"))
    assert kept.asked == 300
    small.batch(slice(0, 10))
    assert kept.asked == 300


def test_computed_and_stored_sets_join_and_are_taken_apart_in_any_order() -> None:
    first, second, third = pixels(5, 1), pixels(7, 2), pixels(4, 3)
    joined = ImageSet.concatenate(
        [image_set(Inverted(first), "a"), image_set(second, "b"), image_set(Inverted(third), "c")]
    )
    whole = np.concatenate([255 - first, second, 255 - third])
    assert joined.images.shape == whole.shape
    positions = np.random.default_rng(4).permutation(16)
    taken = joined.take(positions)
    assert isinstance(taken.images, ComputedImages)
    assert np.array_equal(taken.images.all(CPU).numpy(), whole[positions])
    assert taken.ids == tuple(joined.ids[index] for index in positions)


def mapped(path: Path, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    np.save(path, array)
    found: NDArray[np.uint8] = np.load(path, mmap_mode="c")
    return found


def test_large_mapped_sets_join_without_a_copy_and_small_ones_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [mapped(tmp_path / f"{n}.npy", pixels(n, n)) for n in (5, 7)]
    sets = [image_set(part, name) for part, name in zip(parts, "ab", strict=True)]
    whole = np.concatenate(parts)
    assert isinstance(ImageSet.concatenate(sets).images, np.ndarray)
    monkeypatch.setattr(imageset, "COPIED_BYTES", whole.nbytes - 1)
    joined = ImageSet.concatenate(sets)
    assert isinstance(joined.images, ComputedImages)
    assert np.array_equal(joined.images.all(CPU).numpy(), whole)
    on_disk, resident = DeviceSet(joined, resident_bytes=0), DeviceSet(joined)
    assert isinstance(on_disk.images, ComputedImages)
    assert isinstance(resident.images, Tensor)
    for one, other in zip(on_disk.shuffled(4, seed=0, epoch=0), resident.shuffled(4, seed=0, epoch=0), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def test_a_large_split_of_decoded_files_stays_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, value in enumerate(np.random.default_rng(0).integers(0, 256, 30).tolist()):
        place = tmp_path / "tree" / "only" / "ab"[index % 2] / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (value, 0, 0)).save(place)
    params = ImageFolderParams(path=str(tmp_path / "tree"), cache=str(tmp_path / "cache"), layout="domain")
    cache = ImageFolder(params)._pixels
    copied = cache.at([1, 2, 5, 20])
    assert isinstance(copied, np.ndarray)
    monkeypatch.setattr(pixel_cache, "COPIED_BYTES", 10)
    lazy = cache.at([1, 2, 5, 20])
    assert isinstance(lazy, ComputedImages)
    assert np.array_equal(lazy.all(CPU).numpy(), copied)
    assert isinstance(cache.at([3, 4, 5]), np.memmap)


def test_images_of_different_sizes_do_not_join() -> None:
    other = np.zeros((2, 3, 5, 5), dtype=np.uint8)
    with pytest.raises(ValueError, match="differ in shape"):
        ImageSet.concatenate([image_set(Inverted(pixels(2)), "a"), image_set(other, "b")])
