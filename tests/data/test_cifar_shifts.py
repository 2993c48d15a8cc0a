"""CIFAR-C and CIFAR-10.1 from their arrays: severities are slices, sources are shared, bad files are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robusteval.data.cifar_shifts import Cifar10C, Cifar101, CifarShiftParams
from robusteval.data.imageset import canonical_rank
from robusteval.schema.errors import DataError, UnknownNameError

N = 8
"""Test images of the small copy."""


def write_c(root: Path, names: tuple[str, ...] = ("fog", "gaussian_noise")) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    labels = np.arange(N, dtype=np.uint8) % 10
    np.save(root / "labels.npy", np.tile(labels, 5))
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (5 * N, 32, 32, 3), dtype=np.uint8)
        np.save(root / f"{name}.npy", pixels)
    return root


def corrupted(root: Path, **params: Any) -> Cifar10C:
    return Cifar10C(CifarShiftParams(path=str(root), cache=str(root / ".cache"), **{"complete": False, **params}))


def test_severities_are_slices_of_the_published_array(tmp_path: Path) -> None:
    data = corrupted(write_c(tmp_path))
    assert data.domains[:6] == ("fog-1", "fog-2", "fog-3", "fog-4", "fog-5", "gaussian_noise-1")
    part = data.load("gaussian_noise-3", "test")
    stored = np.load(tmp_path / "gaussian_noise.npy")
    for name, image, label in zip(part.ids, part.images, part.labels, strict=True):
        index = int(name.removeprefix("gaussian_noise-3/"))
        assert np.array_equal(image, stored[2 * N + index].transpose(2, 0, 1))
        assert label == index % 10


def test_all_domains_show_the_same_sources_in_the_order_of_cifar(tmp_path: Path) -> None:
    data = corrupted(write_c(tmp_path))
    groups = {data.load(domain, "test").groups for domain in data.domains}
    assert len(groups) == 1
    (found,) = groups
    assert list(found) == sorted((f"test/{index:05d}" for index in range(N)), key=canonical_rank)
    assert data.load("fog-1", "test", 3).groups == found[:3]
    assert data.ids("fog-1", "train") == ()


def test_the_revision_follows_every_file(tmp_path: Path) -> None:
    before = corrupted(write_c(tmp_path)).revision
    assert corrupted(tmp_path).revision == before
    pixels = np.load(tmp_path / "fog.npy")
    pixels[0, 0, 0, 0] ^= 1
    np.save(tmp_path / "fog.npy", pixels)
    assert corrupted(tmp_path).revision != before


def test_an_array_of_the_wrong_length_is_named(tmp_path: Path) -> None:
    write_c(tmp_path)
    np.save(tmp_path / "fog.npy", np.zeros((5 * N - 1, 32, 32, 3), dtype=np.uint8))
    with pytest.raises(DataError, match=r"fog\.npy: holds 39 examples, not 40; get the file again"):
        corrupted(tmp_path).load("fog-1", "test")
    with pytest.raises(DataError, match=r"labels\.npy: holds 40 examples, not 50000"):
        corrupted(tmp_path, complete=True).load("fog-1", "test")
    np.save(tmp_path / "labels.npy", np.zeros(5 * N - 3, dtype=np.uint8))
    with pytest.raises(DataError, match=r"labels\.npy: holds 37 examples, not 35"):
        corrupted(tmp_path).load("fog-1", "test")


def test_labels_must_repeat_for_every_severity(tmp_path: Path) -> None:
    write_c(tmp_path)
    np.save(tmp_path / "labels.npy", np.arange(5 * N, dtype=np.uint8) % 9)
    with pytest.raises(DataError, match="labels of the severities differ"):
        corrupted(tmp_path).load("fog-1", "test")


def test_a_file_that_is_cut_off_or_no_array_is_named(tmp_path: Path) -> None:
    write_c(tmp_path)
    path = tmp_path / "fog.npy"
    whole = path.read_bytes()
    for content in (whole[:-100], b"<html>not found</html>", b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"fog\.npy: is no whole array of numbers") as caught:
            corrupted(tmp_path).load("fog-1", "test")
        assert "\n" not in str(caught.value)
    np.save(path, np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"fog\.npy: is no whole array of numbers \(.*Python objects"):
        corrupted(tmp_path).load("fog-1", "test")
    np.save(path, np.zeros((5 * N, 32, 32, 3), dtype=np.float32))
    with pytest.raises(DataError, match=r"holds \(40, 32, 32, 3\) float32, not \(N, 32, 32, 3\) uint8"):
        corrupted(tmp_path).load("fog-1", "test")
    path.unlink()
    with pytest.raises(UnknownNameError, match="unknown domain 'fog-1'"):
        corrupted(tmp_path).load("fog-1", "test")


def test_missing_labels_and_missing_data_are_named(tmp_path: Path) -> None:
    write_c(tmp_path)
    (tmp_path / "labels.npy").unlink()
    with pytest.raises(DataError, match=r"labels\.npy: is missing; put the published file there"):
        corrupted(tmp_path).ids("fog-1", "test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no corruption is there"):
        _ = corrupted(tmp_path / "empty").domains
    with pytest.raises(DataError, match=r"cifar10-c is not there; .*data fetch cifar10-c"):
        _ = corrupted(tmp_path / "absent").domains


def test_new_test_images_come_in_the_versions_that_are_there(tmp_path: Path) -> None:
    np.save(tmp_path / "cifar10.1_v6_data.npy", np.full((3, 32, 32, 3), 7, dtype=np.uint8))
    np.save(tmp_path / "cifar10.1_v6_labels.npy", np.array([1, 2, 3], dtype=np.int32))
    data = Cifar101(CifarShiftParams(path=str(tmp_path), complete=False, cache=str(tmp_path / ".cache")))
    assert data.domains == ("v6",)
    part = data.load("v6", "test")
    assert sorted(zip(part.ids, part.labels, strict=True)) == [("v6/00000", 1), ("v6/00001", 2), ("v6/00002", 3)]
    assert part.images.shape == (3, 3, 32, 32)
    assert len(data.revision) == 64
    np.save(tmp_path / "cifar10.1_v6_labels.npy", np.array([1, 2], dtype=np.int32))
    with pytest.raises(DataError, match=r"v6_labels\.npy: holds 2 examples, not 3"):
        data.load("v6", "test")
    with pytest.raises(DataError, match=r"v6_data\.npy: holds 3 examples, not 2000"):
        Cifar101(CifarShiftParams(path=str(tmp_path))).ids("v6", "test")
