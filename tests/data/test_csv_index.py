"""Lists of image files: columns, splits as the list says, paths that stay inside, and what bad lists get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from robusteval.data.csv_index import CsvIndex, CsvParams
from robusteval.schema.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for index in range(6):
        path = tmp_path / "data" / "pictures" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (index, 0, 0)).save(path)
    return tmp_path / "data"


def index_of(root: Path, text: str, **params: Any) -> CsvIndex:
    (root / "list.csv").write_text(text, encoding="utf-8")
    return CsvIndex(CsvParams(path=str(root / "list.csv"), cache=str(root.parent / "cache"), **params))


FULL = """path,label,domain,split
pictures/0.png,cat,photo,train
pictures/1.png,dog,photo,crossval
pictures/2.png,cat,photo,test
pictures/3.png,dog,sketch,test
"""


def test_a_list_with_splits_is_followed_exactly(root: Path) -> None:
    data = index_of(root, FULL)
    assert data.domains == ("photo", "sketch")
    assert data.classes == ("cat", "dog")
    assert data.ids("photo", "train") == ("pictures/0.png",)
    assert data.ids("photo", "validation") == ("pictures/1.png",)
    assert data.ids("sketch", "train") == ()
    part = data.load("sketch", "test")
    assert part.images[0, 0, 0, 0] == 3
    assert list(part.labels) == [1]


def test_without_domains_and_splits_there_is_one_domain_split_by_hash(root: Path) -> None:
    text = "label,path\n" + "".join(f"{'cat' if index % 2 else 'dog'},pictures/{index}.png\n" for index in range(6))
    data = index_of(root, text)
    assert data.domains == ("data",)
    found = [data.ids("data", split) for split in ("train", "validation", "test")]
    assert sum(map(len, found)) == 6
    whole = index_of(root, text.replace("label,path", "label,path"), validation=0.0, test=0.0).load("data", "train")
    assert [int(image[0, 0, 0]) for image in whole.images] == [int(name[9]) for name in whole.ids]


def test_the_revision_follows_labels_domains_and_splits(root: Path) -> None:
    before = index_of(root, FULL).revision
    assert index_of(root, FULL.replace("\n", "\r\n")).revision == before
    for old, new in (("0.png,cat", "0.png,dog"), ("sketch,test", "photo,test"), ("crossval", "train")):
        assert index_of(root, FULL.replace(old, new)).revision != before


@pytest.mark.parametrize(
    "path",
    ["../outside.png", "pictures/../../outside.png", "/etc/passwd", "..", "pictures/link.png", "pictures\\0.png", ""],
)
def test_a_path_that_leaves_the_folder_is_refused(root: Path, path: str) -> None:
    Image.new("RGB", (8, 8)).save(root.parent / "outside.png")
    (root / "pictures" / "link.png").symlink_to(root.parent / "outside.png")
    with pytest.raises(DataError, match=r"line 2: .* (is no path inside|is a link that leaves)"):
        _ = index_of(root, f"path,label\n{path},cat\n").domains


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "path,label\npictures/0.png,cat\n./pictures/0.png,dog\n",
            r"line 3: pictures/0\.png stands on an earlier line",
        ),
        ("path,label\npictures/9.png,cat\n", r"line 2: .*9\.png: cannot be read \(No such file"),
        ("path,label\npictures,cat\n", "line 2: .*pictures: is not a regular file"),
        ("path,label\npictures/0.png,\n", "line 2: 'pictures/0.png' has no label"),
        ("path,label\npictures/0.png\n", "line 2 has another number of cells than 2"),
        ("path,label\npictures/0.png,cat,x\n", "line 2 has another number of cells than 2"),
        ("path,label,split\npictures/0.png,cat,trian\n", "unknown split 'trian'; did you mean 'train'"),
        ("path,lable\npictures/0.png,cat\n", "unknown column 'lable'; did you mean 'label'"),
        ("path,domain\npictures/0.png,photo\n", r"must name the columns path, label"),
        ('path,label\n"pictures/0.png,cat\n', "unexpected end of data; mend the line"),
        ("path,label\n", "lists no image"),
        ("", "must name the columns"),
    ],
)
def test_what_is_wrong_with_a_list_is_one_line(root: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        _ = index_of(root, text).domains
    assert str(caught.value).startswith(str(root / "list.csv"))
    assert "\n" not in str(caught.value)
    assert not (root.parent / "cache").exists()


def test_every_bad_row_is_named_up_to_eight(root: Path) -> None:
    text = "path,label\n" + "".join(f"pictures/{index}.jpg,cat\n" for index in range(10))
    with pytest.raises(DataError, match=r"line 2: .*line 9: .*and 2 more"):
        _ = index_of(root, text).domains


def test_a_list_that_is_missing_or_no_text_is_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"no\.csv: cannot be read"):
        _ = CsvIndex(CsvParams(path=str(root / "no.csv"))).domains
    (root / "list.csv").write_bytes(b"path,label\n\xff\xfe,cat\n")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        _ = CsvIndex(CsvParams(path=str(root / "list.csv"))).domains


@settings(max_examples=60)
@given(text=st.text(alphabet='path,labelcat/.0123"\n\r\0;', max_size=60))
def test_any_text_is_read_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.mktemp("list")
    try:
        data = index_of(root, "path,label\n" + text)
        _ = data.domains
    except DataError as error:
        assert "\n" not in str(error)
    else:
        pytest.fail("no image is there, so no list can be right")


def test_pixels_are_those_of_the_files(root: Path) -> None:
    part = index_of(root, FULL).load("photo", "test")
    assert np.array_equal(part.images[0].transpose(1, 2, 0), np.asarray(Image.open(root / "pictures" / "2.png")))


def test_a_column_of_splits_leaves_nothing_to_split(root: Path) -> None:
    with pytest.raises(
        DataError, match="the column 'split' says which image is in which split, so 'score_share' means"
    ):
        index_of(root, FULL, score_share="80%").ids("photo", "train")
