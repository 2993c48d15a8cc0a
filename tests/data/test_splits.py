"""Splits of trees of domains: DomainBed's holdout against known draws, sources and targets, shares that are scored."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusteval.data.folder_index import ImageFile
from robusteval.data.imageset import canonical_rank
from robusteval.data.splits import (
    SPLITS,
    DomainSplitParams,
    assign_splits,
    domainbed_holdout,
    hashed_split,
    listing_order,
    lone_classes,
)
from robusteval.schema.errors import DataError

DOMAINS = ("art", "photo", "sketch")


def tree(per_class: int = 20) -> list[ImageFile]:
    paths = [(top, label, n) for top in DOMAINS for label in ("cat", "dog") for n in range(per_class)]
    files = [ImageFile(f"{top}/{label}/{n:02d}.png", 1, 1, top, label) for top, label, n in paths]
    return sorted(files, key=lambda file: (file.top, canonical_rank(file.path)))


def assigned(**params: object) -> dict[tuple[str, str], set[str]]:
    files = tree()
    found = assign_splits(files, DOMAINS, DomainSplitParams.model_validate(params))
    for positions in found.values():
        assert all(a < b for a, b in pairwise(positions))
    return {key: {files[index].path for index in positions} for key, positions in found.items()}


def test_the_holdout_of_domainbed_is_the_published_one() -> None:
    # Worked out apart, with a Mersenne Twister and the masked rejection of numpy's legacy shuffle written out.
    assert int.from_bytes(hashlib.md5(b"(0, 0)", usedforsecurity=False).digest(), "big") % 2**31 == 894182419
    assert domainbed_holdout(20, 0, 0) == [7, 6, 10, 17]
    assert domainbed_holdout(20, 0, 1) == [3, 1, 0, 17]
    assert domainbed_holdout(20, 2, 3) == [11, 9, 10, 13]
    assert [len(domainbed_holdout(n, 0, 0)) for n in (1670, 2048, 2344, 3929)] == [334, 409, 468, 785]


@given(n=st.integers(0, 300), trial=st.integers(0, 50), environment=st.integers(0, 10))
def test_a_holdout_is_a_fifth_of_distinct_places(n: int, trial: int, environment: int) -> None:
    held_out = domainbed_holdout(n, trial, environment)
    assert len(set(held_out)) == len(held_out) == n // 5
    assert set(held_out) <= set(range(n))


def test_examples_are_numbered_as_torchvision_lists_them() -> None:
    names = ("photo/dog/b.png", "photo/cat/sub/a.png", "photo/cat/z.png", "photo/cat/10.png", "photo/cat/9.png")
    files = [ImageFile(name, 1, 1, "photo", name.split("/")[1]) for name in names]
    expected = ["photo/cat/10.png", "photo/cat/9.png", "photo/cat/z.png", "photo/cat/sub/a.png", "photo/dog/b.png"]
    assert [file.path for file in sorted(files, key=listing_order)] == expected


def test_domainbed_splits_follow_the_holdout_of_each_environment() -> None:
    found = assigned(split="domainbed", trial=1)
    for number, domain in enumerate(DOMAINS):
        listed = sorted((file for file in tree() if file.top == domain), key=listing_order)
        held_out = {listed[place].path for place in domainbed_holdout(len(listed), 1, number)}
        assert found[domain, "validation"] == found[domain, "test"] == held_out
        assert found[domain, "train"] == {file.path for file in listed} - held_out
    assert assigned(split="domainbed", trial=2)["art", "train"] != found["art", "train"]


def test_a_target_is_test_data_as_a_whole() -> None:
    for split in ("hash", "domainbed"):
        found = assigned(split=split, sources=["photo"])
        for target in ("art", "sketch"):
            assert len(found[target, "test"]) == 40
            assert (target, "train") not in found
            assert (target, "validation") not in found
        assert found["photo", "train"]
        assert found["photo", "validation"]


def test_eighty_percent_of_a_target_leaves_a_fifth_to_the_oracle() -> None:
    found = assigned(split="domainbed", sources=["photo"], score_share="80%")
    assert len(found["art", "test"]) == 32
    assert len(found["art", "validation"]) == 8
    assert not found["art", "test"] & found["art", "validation"]
    whole = assigned(split="domainbed")
    assert found["art", "validation"] == whole["art", "validation"]
    hashed = assigned(sources=["photo"], score_share="80%")
    assert not hashed["art", "test"] & hashed["art", "validation"]
    assert len(hashed["art", "test"] | hashed["art", "validation"]) == 40


def test_sources_do_not_change_the_split_of_a_source() -> None:
    for split in ("hash", "domainbed"):
        alone, together = assigned(split=split, sources=["photo"]), assigned(split=split)
        assert all(alone["photo", part] == together["photo", part] for part in SPLITS)


def test_unknown_sources_are_named() -> None:
    with pytest.raises(DataError, match="unknown domain in 'sources' 'foto'; did you mean 'photo'"):
        assigned(sources=["foto"])


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"sources": []}, "sources is empty"),
        ({"trial": 1}, "trial is a seed of split 'domainbed'"),
        ({"validation": 0.6, "test": 0.4}, "less than 1"),
    ],
)
def test_splits_that_mean_nothing_are_refused(params: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DomainSplitParams.model_validate(params)


def test_hashed_splits_are_runs_of_the_canonical_order() -> None:
    names = sorted((f"photo/cat/{n}.png" for n in range(500)), key=canonical_rank)
    splits = [hashed_split(name, 0.1, 0.3) for name in names]
    assert splits == sorted(splits, key=("train", "validation", "test").index)
    assert np.allclose([splits.count(split) / 500 for split in SPLITS], (0.6, 0.1, 0.3), atol=0.05)


def test_a_class_in_one_domain_only_is_found() -> None:
    files = [*tree(1), ImageFile("art/bird/1.png", 1, 1, "art", "bird")]
    assert list(lone_classes(files)) == [("bird", "art")]
    assert list(lone_classes([file for file in files if file.top == "art"])) == []
