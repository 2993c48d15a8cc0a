"""Image sets keep images, labels, ids, groups and domains together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusteval.data.imageset import ImageSet
from robusteval.schema.digest import stable_int


def image_set(n: int, *, domain: str = "d", classes: tuple[str, ...] = ("x", "y", "z")) -> ImageSet:
    images = np.arange(n, dtype=np.uint8)[:, None, None, None].repeat(3, axis=1)
    return ImageSet(
        images=images,
        labels=np.arange(n, dtype=np.int64) % len(classes),
        ids=tuple(f"{domain}/{i}" for i in range(n)),
        groups=tuple(str(i) for i in range(n)),
        domains=(domain,) * n,
        classes=classes,
    )


@given(st.lists(st.integers(0, 9), unique=True, max_size=10))
def test_taken_examples_keep_all_their_parts(positions: list[int]) -> None:
    whole = image_set(10)
    part = whole.take(positions)
    assert part.images[:, 0, 0, 0].tolist() == positions
    assert part.labels.tolist() == [position % 3 for position in positions]
    assert part.ids == tuple(f"d/{position}" for position in positions)
    assert part.groups == tuple(str(position) for position in positions)
    assert part.keys.tolist() == [stable_int("example", f"d/{position}") for position in positions]


def test_the_digest_of_the_ids_knows_their_order() -> None:
    whole = image_set(4)
    assert whole.take([0, 1]).ids_digest == whole.take([0, 1]).ids_digest
    assert whole.take([0, 1]).ids_digest != whole.take([1, 0]).ids_digest


def test_joined_sets_follow_each_other_and_count_their_domains() -> None:
    joined = ImageSet.concatenate([image_set(2, domain="a"), image_set(3, domain="b")])
    assert joined.ids == ("a/0", "a/1", "b/0", "b/1", "b/2")
    assert joined.domain_counts == (("a", 2), ("b", 3))
    assert joined.images[:, 0, 0, 0].tolist() == [0, 1, 0, 1, 2]


def test_joining_one_set_copies_nothing() -> None:
    whole = image_set(3)
    assert ImageSet.concatenate([whole]).images is whole.images


def test_sets_of_different_classes_do_not_join() -> None:
    with pytest.raises(ValueError, match="same classes"):
        ImageSet.concatenate([image_set(2), image_set(3, domain="e", classes=("x", "y"))])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((4, 3, 1, 1), dtype=np.float32)}, "uint8"),
        ({"images": np.zeros((4, 3), dtype=np.uint8)}, "N, C, H, W"),
        ({"labels": np.zeros(4, dtype=np.int32)}, "int64"),
        ({"labels": np.array([0, 1, 2, 3])}, r"\[0, 3\)"),
        ({"labels": np.array([0, 1, 2, -1])}, r"\[0, 3\)"),
        ({"ids": ("a", "b", "c", "a")}, "twice"),
        ({"groups": ("a",)}, "length"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(image_set(4), **change)
