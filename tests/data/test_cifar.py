"""CIFAR from its three forms: the same examples from each, no code run from a pickle, and what bad files get."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from robusteval.data.cifar import Cifar10, Cifar100, CifarParams
from robusteval.data.cifar_classes import CIFAR10_CLASSES, CIFAR100_CLASSES
from robusteval.data.cifar_files import read_pickled
from robusteval.data.imageset import canonical_rank
from robusteval.schema.errors import DataError, UnknownNameError

TRAIN, TEST = 10, 6
"""Images of each training batch and of the test batch."""


def pixels(seed: int, n: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)


def labels(seed: int, n: int, classes: int = 10) -> list[int]:
    return [int(label) for label in np.random.default_rng(seed).integers(0, classes, n)]


def batches() -> dict[str, tuple[int, int]]:
    """Seed and length by name of the Python batch."""
    return {f"data_batch_{number}": (number, TRAIN) for number in range(1, 6)} | {"test_batch": (9, TEST)}


def write_binary(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, (seed, n) in batches().items():
        rows = np.concatenate([np.array(labels(seed, n), dtype=np.uint8)[:, None], pixels(seed, n)], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    return root


def write_pickles(root: Path) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, (seed, n) in batches().items():
        batch = {b"batch_label": b"x", b"labels": labels(seed, n), b"data": pixels(seed, n), b"filenames": [b"a.png"]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return root


def old_pickle(data: bytes, label: int) -> bytes:
    """One image as Python 2 pickled it: byte strings without a codec, modules of numpy 1."""
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01M\x00\x0c\x86"
    kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    head = b"\x80\x02}(U\x04data" + array + kind + b"\x89T" + struct.pack("<i", len(data)) + data + b"tb"
    return head + b"U\x06labels](K" + bytes([label]) + b"eu."


def cifar10(root: Path, **params: Any) -> Cifar10:
    return Cifar10(CifarParams(path=str(root), complete=False, **params))


def test_binary_and_python_versions_are_the_same_data(tmp_path: Path) -> None:
    one = cifar10(write_binary(tmp_path / "a"))
    two = cifar10(write_pickles(tmp_path / "b"))
    assert one.revision == two.revision
    assert one.domains == ("cifar10",)
    for split in ("train", "validation", "test"):
        first, second = one.load("cifar10", split), two.load("cifar10", split)
        assert first.ids == second.ids == one.ids("cifar10", split)
        assert np.array_equal(first.images, second.images)
        assert np.array_equal(first.labels, second.labels)


def test_an_example_is_the_published_one_of_its_number(tmp_path: Path) -> None:
    part = cifar10(write_binary(tmp_path), validation=0.0).load("cifar10", "train")
    assert sorted(part.ids) == [f"train/{index:05d}" for index in range(5 * TRAIN)]
    position = part.ids.index("train/00023")
    assert np.array_equal(part.images[position], pixels(3, TRAIN)[3].reshape(3, 32, 32))
    assert part.labels[position] == labels(3, TRAIN)[3]
    assert list(part.ids) == sorted(part.ids, key=canonical_rank)


def test_a_share_of_train_is_held_out_and_test_is_left_alone(tmp_path: Path) -> None:
    data = cifar10(write_binary(tmp_path), validation=0.3)
    train, validation, test = (data.ids("cifar10", split) for split in ("train", "validation", "test"))
    assert not set(train) & set(validation)
    assert len(train) + len(validation) == 5 * TRAIN
    assert len(test) == TEST
    assert data.load("cifar10", "train", 4).ids == train[:4]


def test_the_batches_folder_itself_may_be_the_path(tmp_path: Path) -> None:
    root = write_binary(tmp_path)
    assert cifar10(root).revision == cifar10(root / "cifar-10-batches-bin").revision


def test_the_fine_labels_of_cifar100_are_read(tmp_path: Path) -> None:
    for name, seed in (("train", 1), ("test", 2)):
        coarse_fine = np.array([[3, label] for label in labels(seed, 8, 100)], dtype=np.uint8)
        (tmp_path / f"{name}.bin").write_bytes(np.concatenate([coarse_fine, pixels(seed, 8)], axis=1).tobytes())
    data = Cifar100(CifarParams(path=str(tmp_path), complete=False))
    part = data.load("cifar100", "test")
    assert data.classes == CIFAR100_CLASSES
    assert [int(label) for label in part.labels] == [labels(2, 8, 100)[int(name[-5:])] for name in part.ids]


def test_a_folder_of_images_is_the_third_form(tmp_path: Path) -> None:
    for top in ("train", "test"):
        for label in CIFAR10_CLASSES:
            path = tmp_path / "cifar10" / top / label / "0000.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (32, 32), (len(label), 0, 0)).save(path)
    data = cifar10(tmp_path, cache=str(tmp_path / "cache"), validation=0.0)
    part = data.load("cifar10", "test")
    assert part.classes == CIFAR10_CLASSES
    assert set(part.domains) == {"cifar10"}
    for name, image, label in zip(part.ids, part.images, part.labels, strict=True):
        assert name == f"test/{CIFAR10_CLASSES[label]}/0000.png"
        assert image[0, 0, 0] == len(CIFAR10_CLASSES[label])


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    data = pixels(0, 1).tobytes()
    (tmp_path / "batch").write_bytes(old_pickle(data, 7))
    images, targets = read_pickled(tmp_path, ("batch",), label_key="labels", classes=10)
    assert images.tobytes() == data
    assert list(targets) == [7]


class _Opener:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_names_anything_else_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    written = tmp_path / "written"
    batch = {b"data": _Opener(str(written)), b"labels": [1]}
    (tmp_path / "batch").write_bytes(pickle.dumps(batch, protocol=protocol))
    with pytest.raises(
        DataError, match=r"batch: is no published batch \(it names .*open, which no published batch does"
    ):
        read_pickled(tmp_path, ("batch",), label_key="labels", classes=10)
    assert not written.exists()


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ([1, 2], "has no entries 'data' and 'labels'"),
        ({b"data": b"raw", b"labels": [1]}, "has no entries"),
        ({b"data": np.zeros((1, 3072), np.float32), b"labels": [1]}, "no array of"),
        ({b"data": np.zeros((1, 3071), np.uint8), b"labels": [1]}, "no array of"),
        ({b"data": np.zeros((3072, 2), np.uint8).T, b"labels": [1, 2]}, "no array of"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [1, 2]}, "holds 1 images and 2 labels"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, r"labels must lie in \[0, 10\), not up to 10"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [b"1"]}, "labels that are no whole numbers"),
    ],
)
def test_pickles_of_something_else_are_one_line(tmp_path: Path, batch: object, says: str) -> None:
    (tmp_path / "batch").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(DataError, match=says) as caught:
        read_pickled(tmp_path, ("batch",), label_key="labels", classes=10)
    assert str(tmp_path / "batch") in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=60)
@given(place=st.integers(0, 3400), value=st.integers(0, 255), keep=st.integers(0, 3400))
def test_damaged_pickles_are_refused_or_read_never_more(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int, keep: int
) -> None:
    path = tmp_path_factory.mktemp("pickle") / "batch"
    good = bytearray(old_pickle(pixels(0, 1).tobytes(), 7))
    if place < len(good):
        good[place] = value
    path.write_bytes(bytes(good[: max(keep, 200)]) if keep % 2 else bytes(good))
    try:
        images, targets = read_pickled(path.parent, ("batch",), label_key="labels", classes=10)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert images.shape == (1, 3, 32, 32)
        assert len(targets) == 1


def test_files_of_the_wrong_length_are_named(tmp_path: Path) -> None:
    root = write_binary(tmp_path)
    file = root / "cifar-10-batches-bin" / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_3\.bin: 30729 bytes are no whole images of 3073 bytes"):
        cifar10(root).load("cifar10", "train")
    file.unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin: cannot be read \(No such file"):
        cifar10(root).load("cifar10", "train")


def test_a_part_of_cifar_is_refused_unless_wanted(tmp_path: Path) -> None:
    root = write_binary(tmp_path)
    with pytest.raises(DataError, match=r"data_batch_1\.bin: holds 50 examples, not 50000"):
        Cifar10(CifarParams(path=str(root))).ids("cifar10", "train")


def test_nothing_there_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"cifar10 is not there; it needs cifar-10-batches-bin/ or .*data fetch cifar10"
    ):
        cifar10(tmp_path).ids("cifar10", "train")
    (tmp_path / "train" / "cat").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "train" / "cat" / "1.png")
    with pytest.raises(DataError, match="not cifar10: 1 class folders"):
        cifar10(tmp_path, cache=str(tmp_path / "cache")).ids("cifar10", "train")
    with pytest.raises(UnknownNameError, match="domain of cifar10"):
        cifar10(tmp_path).ids("photo", "train")
