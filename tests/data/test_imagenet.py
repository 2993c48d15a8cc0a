"""ImageNet and its shifts: parts by their usual names, class subsets from folders, numbered folders of V2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from robusteval.data.imagenet import ImageNet, ImageNetParams
from robusteval.schema.errors import DataError, UnknownNameError

WNIDS = ("n01", "n02", "n03", "n04")


def write(path: Path, red: int, size: tuple[int, int] = (16, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red, 0, 0)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, wnid in enumerate(WNIDS):
        for index in range(3):
            write(tmp_path / "in" / "val" / wnid / f"{index}.png", 10 * number)
            write(tmp_path / "in" / "train" / wnid / f"{index}.png", 10 * number + 1)
        write(tmp_path / "in" / "imagenetv2-matched-frequency-format-val" / str(number) / "0.png", 10 * number + 2)
    for wnid in ("n02", "n04"):
        write(tmp_path / "in" / "imagenet-r" / wnid / "art.png", 10 * WNIDS.index(wnid) + 3)
    return tmp_path / "in"


def imagenet(root: Path, **params: Any) -> ImageNet:
    return ImageNet(
        ImageNetParams(path=str(root), cache=str(root.parent / "cache"), **{"complete": False, "size": 8, **params})
    )


def test_labels_mean_the_same_class_in_every_domain(root: Path) -> None:
    data = imagenet(root)
    assert data.domains == ("val", "v2", "r")
    assert data.classes == WNIDS
    for domain in data.domains:
        part = data.load(domain, "test")
        assert [int(image[0, 0, 0]) // 10 for image in part.images] == list(part.labels)
        assert part.ids == data.ids(domain, "test")
        assert part.ids[0].split("/")[0] == domain


def test_a_domain_with_fewer_classes_is_a_subset_of_labels(root: Path) -> None:
    data = imagenet(root)
    assert data.class_subset("r") == (1, 3)
    assert data.class_subset("val") is None
    assert data.class_subset("v2") is None
    assert set(data.load("r", "test").labels) == {1, 3}


def test_training_images_belong_to_val_and_leave_a_validation_share(root: Path) -> None:
    data = imagenet(root, validation=0.4)
    train, validation = data.ids("val", "train"), data.ids("val", "validation")
    assert {name.split("/")[0] for name in (*train, *validation)} == {"train"}
    assert len(train) + len(validation) == 12
    assert validation
    assert all(image[0, 0, 0] % 10 == 1 for image in data.load("val", "train").images)
    assert data.ids("r", "train") == ()
    without = imagenet(root, train=False)
    assert without.ids("val", "train") == ()
    with pytest.raises(DataError, match=r"no train images of domain 'val'; add train/"):
        without.load("val", "train")


def test_only_wanted_domains_are_opened(root: Path) -> None:
    (root / "imagenet-r" / "n02" / "art.png").write_bytes(b"broken")
    data = imagenet(root, domains=("val",), train=False)
    assert data.domains == ("val",)
    assert len(data.load("val", "test")) == 12
    with pytest.raises(DataError, match="no folder for domain 'a'; it may be called imagenet-a"):
        _ = imagenet(root, domains=("val", "a")).domains
    with pytest.raises(UnknownNameError):
        data.ids("r", "test")


def test_pictures_are_cut_to_their_centre(root: Path) -> None:
    path = root / "val" / "n01" / "0.png"
    picture = Image.new("RGB", (16, 16), (255, 255, 255))
    picture.paste((0, 0, 0), (1, 1, 15, 15))
    picture.save(path)
    whole, centre = (imagenet(root, size=14, centre=share, train=False) for share in (1.0, 0.875))
    first = whole.load("val", "test").ids.index("val/n01/0.png")
    assert whole.load("val", "test").images[first].max() > 0
    assert centre.load("val", "test").images[first].max() == 0
    assert whole.revision != centre.revision


def test_a_copy_of_the_wrong_size_is_refused_unless_wanted(root: Path) -> None:
    with pytest.raises(DataError, match=r"val: 12 images instead of 50000; get it again, or set complete: false"):
        _ = imagenet(root, complete=True).domains


def test_folders_that_are_no_class_are_named(root: Path) -> None:
    write(root / "imagenet-r" / "n99" / "x.png", 0)
    with pytest.raises(DataError, match=r"imagenet-r: 1 folders are no class of val/ or train/, such as n99"):
        imagenet(root).class_subset("r")


def test_a_shift_alone_cannot_number_its_classes(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither val/ nor train/ is there, whose folders number the classes"):
        _ = imagenet(root, domains=("r",), train=False).classes
    with pytest.raises(DataError, match="imagenet is not there"):
        _ = imagenet(tmp_path / "absent").classes
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="none of train, val, v2"):
        _ = imagenet(tmp_path / "empty").classes
