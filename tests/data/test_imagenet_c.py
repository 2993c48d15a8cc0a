"""ImageNet-C: a domain a folder, the sources of ImageNet, and what a copy that is not whole gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robusteval.data.imagenet import ImageNet, ImageNetParams
from robusteval.data.imagenet_c import ImageNetC, ImageNetCParams
from robusteval.data.slices import load_slice, make_slice
from robusteval.schema.errors import DataError, UnknownNameError
from robusteval.schema.types import Component

WNIDS = ("n01", "n02", "n03")
CORRUPTIONS = {"fog": "", "snow": "weather"}


def write(path: Path, red: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (red, 0, 0)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for corruption, group in CORRUPTIONS.items():
        for severity in range(1, 6):
            for number, wnid in enumerate(WNIDS):
                for index in range(2):
                    folder = tmp_path / "c" / group / corruption / str(severity) / wnid
                    write(folder / f"ILSVRC2012_val_{index}.png", 40 * number + severity)
    return tmp_path / "c"


def opened(root: Path, **params: Any) -> ImageNetC:
    return ImageNetC(ImageNetCParams(path=str(root), cache=str(root.parent / "cache"), **{"complete": False, **params}))


def test_every_corruption_and_severity_is_a_domain_with_its_own_pixels(root: Path) -> None:
    data = opened(root)
    assert data.domains == tuple(f"{name}-{severity}" for name in ("fog", "snow") for severity in range(1, 6))
    assert data.classes == WNIDS
    assert data.image_shape == (3, 16, 16)
    found = data.load("snow-4", "test")
    images = np.asarray(found.images)
    assert [(int(image[0, 0, 0]) - 4) // 40 for image in images] == list(found.labels)
    assert found.ids == data.ids("snow-4", "test")


def test_all_domains_show_the_sources_of_imagenet_in_its_order(root: Path, tmp_path: Path) -> None:
    for number, wnid in enumerate(WNIDS):
        for index in range(2):
            write(tmp_path / "in" / "val" / wnid / f"ILSVRC2012_val_{index}.png", number)
    params = ImageNetParams(path=str(tmp_path / "in"), cache=str(tmp_path / "cache"), complete=False, size=16)
    clean = ImageNet(params).load("val", "test")
    data = opened(root)
    for domain in data.domains:
        assert data.load(domain, "test").groups == clean.groups
    assert len({name for domain in data.domains for name in data.ids(domain, "test")}) == 60


def test_a_slice_gives_its_examples_back(root: Path) -> None:
    data = opened(root, corruptions=("fog",), severities=(2, 5))
    component = Component(name="imagenet-c", params=data.params.model_dump(mode="json"))
    made = make_slice(component, data, data.domains, "test", 4)
    assert load_slice(made).domain_counts == (("fog-2", 4), ("fog-5", 4))


def test_only_what_is_asked_for_is_opened(root: Path) -> None:
    (root / "weather" / "snow" / "1" / "n01" / "broken.png").write_bytes(b"no image")
    data = opened(root, corruptions=("fog",), severities=(1,))
    assert data.domains == ("fog-1",)
    assert len(data.load("fog-1", "test")) == 6


def test_the_revision_follows_the_files(root: Path) -> None:
    before = opened(root).revision
    write(root / "fog" / "3" / "n02" / "ILSVRC2012_val_0.png", 255)
    assert opened(root).revision != before


def test_a_copy_that_is_not_whole_is_one_line(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fog/1: 6 images instead of 50000; get it again, or set complete: false"):
        _ = opened(root, complete=True).domains
    with pytest.raises(DataError, match=r"no folder frost/<severity>/<class>/; there is fog, snow; get it again"):
        _ = opened(root, corruptions=("frost",)).domains
    with pytest.raises(DataError, match="imagenet-c is not there"):
        _ = opened(tmp_path / "absent").domains
    for path in (root / "fog" / "2" / "n03").iterdir():
        path.unlink()
    (root / "fog" / "2" / "n03").rmdir()
    with pytest.raises(DataError, match="fog-2 and fog-1 differ in 1 classes, such as n03"):
        _ = opened(root).classes


def test_there_is_nothing_to_train_on(root: Path) -> None:
    data = opened(root)
    assert data.ids("fog-1", "train") == ()
    with pytest.raises(DataError, match="measured on, not trained on"):
        data.load("fog-1", "validation")
    with pytest.raises(UnknownNameError, match="did you mean 'fog-1'"):
        data.ids("fogg-1", "test")
