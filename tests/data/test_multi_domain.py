"""PACS and the other published trees of domains: what is there, what is missing, and how protocols are expressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robusteval.data.catalogue import PUBLISHED
from robusteval.data.imageset import Dataset
from robusteval.data.multi_domain import DomainNet, MultiDomainParams, OfficeHome, Pacs, TerraIncognita, Vlcs
from robusteval.schema.errors import CorruptRecordError, DataError

CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
KINDS = (Pacs, Vlcs, OfficeHome, TerraIncognita, DomainNet)


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pacs") / "pacs"
    for number, domain in enumerate(PUBLISHED["pacs"].images):
        for position, label in enumerate(CLASSES):
            for index in range(2):
                write(root / domain / label / f"{index}.png", 100 * number + 10 * position + index)
    return root


def pacs(root: Path, cache: Path, **params: Any) -> Pacs:
    return Pacs(MultiDomainParams(path=str(root), cache=str(cache), **{"complete": False, **params}))


def test_a_part_of_pacs_is_used_only_when_that_is_wanted(tree: Path, tmp_path: Path) -> None:
    data = pacs(tree, tmp_path, sources=("photo",))
    assert data.domains == ("art_painting", "cartoon", "photo", "sketch")
    assert data.classes == CLASSES
    assert len(data.load("sketch", "test")) == 14
    assert data.mean == (0.485, 0.456, 0.406)
    with pytest.raises(DataError, match=r"art_painting has 14 images .*; cartoon has 14 .*complete: false"):
        _ = pacs(tree, tmp_path, complete=True).revision


def test_every_missing_domain_is_named_with_what_is_there(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "part"
    for name in ("art_painting", "fotos"):
        write(root / name / "dog" / "1.png", 0)
    with pytest.raises(DataError) as caught:
        _ = pacs(root, tmp_path / "cache").classes
    message = str(caught.value)
    assert "no folder for its domain 'cartoon' and 'photo' and 'sketch'" in message
    assert "there is art_painting, fotos" in message
    assert "\n" not in message
    assert not (tmp_path / "cache").exists()


def test_a_domain_without_images_is_named(tree: Path, tmp_path: Path) -> None:
    for name in ("art_painting", "cartoon", "photo"):
        write(tmp_path / "pacs" / name / "dog" / "1.png", 0)
    (tmp_path / "pacs" / "sketch").mkdir()
    with pytest.raises(DataError, match="folder sketch holds no image; fill or remove it"):
        _ = pacs(tmp_path / "pacs", tmp_path / "cache").classes


def test_other_folders_beside_the_domains_are_left_alone(tree: Path, tmp_path: Path) -> None:
    before = pacs(tree, tmp_path).revision
    write(tree / "splits" / "x" / "1.png", 0)
    (tree / "overview.png").write_bytes(b"not looked at")
    try:
        assert pacs(tree, tmp_path).revision == before
    finally:
        (tree / "splits" / "x" / "1.png").unlink()
        (tree / "overview.png").unlink()


def test_a_dataset_with_a_name_is_found_in_its_place(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"pacs is not there; link it with `robusteval data link pacs FOLDER`"):
        _ = Pacs(MultiDomainParams(complete=False)).classes
    place = tmp_path / ".cache" / "robusteval" / "datasets" / "pacs"
    place.parent.mkdir(parents=True)
    place.symlink_to(tree)
    found = Pacs(MultiDomainParams(complete=False))
    assert found.classes == CLASSES
    assert found.revision == pacs(tree, tmp_path / "cache").revision


def test_the_split_is_no_part_of_the_revision_and_shares_the_decoded_images(tree: Path, tmp_path: Path) -> None:
    one = pacs(tree, tmp_path, split="domainbed")
    two = pacs(tree, tmp_path, split="domainbed", trial=3, sources=("photo",), score_share="80%")
    assert one.revision == two.revision
    whole = pacs(tree, tmp_path, sources=("photo",)).load("sketch", "test")
    part = two.load("sketch", "test")
    assert set(part.ids) < set(whole.ids)
    assert [name for name in whole.ids if name in part.ids] == list(part.ids)
    place = {name: index for index, name in enumerate(whole.ids)}
    assert np.array_equal(part.images, whole.images[[place[name] for name in part.ids]])
    assert len(list((tmp_path / "pixels").glob("*.crc32.npy"))) == 1


def test_a_damaged_image_is_found_behind_a_split_that_is_not_contiguous(tree: Path, tmp_path: Path) -> None:
    data = pacs(tree, tmp_path, split="domainbed", sources=("photo",), score_share="80%")
    part = data.load("sketch", "test")
    (file,) = (path for path in (tmp_path / "pixels").glob("*.npy") if "crc32" not in path.name)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    last = pacs(tree, tmp_path, sources=("photo",)).ids("sketch", "test")[-1]
    domain_split = "test" if last in part.ids else "validation"
    with pytest.raises(CorruptRecordError, match=f"image {last} fails its checksum"):
        data.load("sketch", domain_split)


@pytest.mark.parametrize("kind", KINDS)
def test_every_tree_is_in_the_catalogue_with_sorted_domains(kind: type[Dataset[Any]]) -> None:
    data = kind(MultiDomainParams(path="/nowhere"))
    assert list(data.domains) == sorted(data.domains)
    with pytest.raises(DataError, match=r"^/nowhere: "):
        _ = data.classes


def test_published_totals_are_those_of_the_literature() -> None:
    totals = {name: sum(PUBLISHED[name].images.values()) for name in ("pacs", "vlcs", "office-home", "domainnet")}
    assert totals == {"pacs": 9991, "vlcs": 10729, "office-home": 15588, "domainnet": 586575}


@pytest.mark.shared
def test_pacs_fits_both_single_source_protocols(shared: Path, tmp_path: Path) -> None:
    place = {"path": str(shared / "data" / "pacs"), "cache": str(tmp_path)}
    advstyle = Pacs(MultiDomainParams(**place, sources=("photo",)))
    assert sum(len(advstyle.ids(name, "test")) for name in ("art_painting", "cartoon", "sketch")) == 8321
    udim = Pacs(MultiDomainParams(**place, split="domainbed", sources=("photo",), score_share="80%"))
    assert len(udim.ids("photo", "train")) == 1336
    assert [len(udim.ids(name, "test")) for name in ("art_painting", "cartoon", "sketch")] == [1639, 1876, 3144]
    assert len(udim.classes) == 7
