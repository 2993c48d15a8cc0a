"""Batches on a device: exact pixels, and an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robusteval.data.batches import Batch, DeviceSet
from robusteval.data.imageset import ImageSet

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def image_set(n: int, domains: tuple[str, ...] | None = None) -> ImageSet:
    pixels = np.arange(n * 12, dtype=np.int64) % 256
    return ImageSet(
        images=pixels.astype(np.uint8).reshape(n, 3, 2, 2),
        labels=np.arange(n, dtype=np.int64) % 3,
        ids=tuple(f"d/{index}" for index in range(n)),
        groups=tuple(str(index) for index in range(n)),
        domains=domains or ("d",) * n,
        classes=("x", "y", "z"),
    )


def same(one: Batch, other: Batch) -> bool:
    return all(
        torch.equal(getattr(one, part).cpu(), getattr(other, part).cpu())
        for part in ("images", "labels", "keys", "domains")
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("resident_bytes", [0, 2**30])
def test_batches_hold_the_same_wherever_the_images_live(device: str, resident_bytes: int) -> None:
    data = image_set(50)
    reference = DeviceSet(data)
    tried = DeviceSet(data, device, resident_bytes=resident_bytes)
    assert tried.device.type == device
    assert tried.resident == (device == "cpu" or resident_bytes > 0)
    for batches in (
        zip(reference.in_order(7), tried.in_order(7), strict=True),
        zip(reference.shuffled(7, seed=1, epoch=2), tried.shuffled(7, seed=1, epoch=2), strict=True),
    ):
        for one, other in batches:
            assert other.images.device.type == other.labels.device.type == device
            assert same(one, other)


@pytest.mark.parametrize("device", DEVICES)
def test_pixels_are_the_nearest_floats_to_their_fractions(device: str) -> None:
    data = image_set(50)
    batch = DeviceSet(data, device).batch(slice(None))
    assert np.array_equal(batch.images.cpu().numpy(), data.images.astype(np.float32) / np.float32(255))


def test_examples_keep_their_keys_and_domains() -> None:
    data = image_set(4, ("b", "a", "b", "a"))
    device_set = DeviceSet(data)
    batch = device_set.batch(torch.tensor([3, 0]))
    assert batch.keys.tolist() == [data.keys[3], data.keys[0]]
    assert [device_set.domain_names[index] for index in batch.domains] == ["a", "b"]
    assert len(batch) == 2


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 30), batch_size=st.integers(1, 12), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_a_shuffled_epoch_shows_every_example_once_but_no_lonely_last_one(
    n: int, batch_size: int, seed: int, epoch: int
) -> None:
    data = DeviceSet(image_set(n))
    seen = [key for batch in data.shuffled(batch_size, seed=seed, epoch=epoch) for key in batch.keys.tolist()]
    assert len(set(seen)) == len(seen)
    if batch_size == 1:
        assert len(seen) == (1 if n == 1 else 0)
    else:
        assert len(seen) == (n - 1 if n > 1 and n % batch_size == 1 else n)


def test_order_depends_on_seed_and_epoch() -> None:
    data = DeviceSet(image_set(30))

    def order(seed: int, epoch: int) -> list[int]:
        return [key for batch in data.shuffled(8, seed=seed, epoch=epoch) for key in batch.keys.tolist()]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_balanced_batches_hold_equally_many_of_each_domain() -> None:
    data = DeviceSet(image_set(30, ("a",) * 4 + ("b",) * 20 + ("c",) * 6))
    batches = list(data.balanced(10, seed=0, epoch=0))
    assert len(batches) == 20 // 3
    for batch in batches:
        assert torch.bincount(batch.domains).tolist() == [3, 3, 3]
    seen = [key for batch in batches for key in batch.keys[batch.domains == 1].tolist()]
    assert len(set(seen)) == len(seen) == 18
    with pytest.raises(ValueError, match="3 domains"):
        next(data.balanced(2, seed=0, epoch=0))


def test_read_only_and_memory_mapped_images_are_served(tmp_path: Path) -> None:
    data = image_set(5)
    np.save(tmp_path / "pixels.npy", data.images)
    for images in (np.load(tmp_path / "pixels.npy", mmap_mode=mode) for mode in ("r", "c")):
        mapped = ImageSet(images, data.labels, data.ids, data.groups, data.domains, data.classes)
        assert same(DeviceSet(mapped).batch(slice(0, 5)), DeviceSet(data).batch(slice(0, 5)))


def test_drawn_batches_hold_equally_many_examples_of_each_domain_and_depend_on_seed_and_epoch_alone() -> None:
    data = DeviceSet(image_set(95, ("a",) * 5 + ("b",) * 90))
    batches = list(data.drawn(8, seed=1, epoch=2, steps=30))
    assert len(batches) == 30
    assert all(torch.bincount(batch.domains, minlength=2).tolist() == [4, 4] for batch in batches)
    again = list(data.drawn(8, seed=1, epoch=2, steps=30))
    assert all(torch.equal(a.keys, b.keys) for a, b in zip(batches, again, strict=True))
    other = list(data.drawn(8, seed=1, epoch=3, steps=30))
    assert not all(torch.equal(a.keys, b.keys) for a, b in zip(batches, other, strict=True))


def test_drawing_is_with_replacement() -> None:
    data = DeviceSet(image_set(40))
    (batch,) = data.drawn(40, seed=0, epoch=0, steps=1)
    assert len(set(batch.keys.tolist())) < 40


def test_a_batch_that_does_not_divide_among_the_domains_cannot_be_drawn() -> None:
    data = DeviceSet(image_set(10, ("a",) * 5 + ("b",) * 5))
    with pytest.raises(ValueError, match="does not divide"):
        next(data.drawn(7, seed=0, epoch=0, steps=1))
