"""Any tree of images as a dataset: layouts, splits, the decoded cache, and what bad trees and caches get."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from robusteval.data.image_folder import ImageFolder, ImageFolderParams
from robusteval.data.imageset import canonical_rank
from robusteval.schema.errors import CorruptRecordError, DataError, UnknownNameError

WORKER = """
import sys, hashlib
from robusteval.data.image_folder import ImageFolder, ImageFolderParams
folder = ImageFolder(ImageFolderParams(path=sys.argv[1], cache=sys.argv[2], size=8))
parts = [folder.load(domain, split).images.tobytes() for domain in folder.domains for split in ("train", "test")]
print(hashlib.sha256(b"".join(parts)).hexdigest(), "torch" in sys.modules)
"""


def write_image(path: Path, seed: int, size: tuple[int, int] = (8, 8)) -> None:
    """A PNG of random pixels; `size` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_tree(root: Path, tops: tuple[str, ...] = ("photo", "sketch"), per_class: int = 12) -> Path:
    for top in tops:
        for label in ("cat", "dog"):
            for index in range(per_class):
                write_image(root / top / label / f"{index:02d}.png", canonical_rank(f"{top}{label}{index}") % 2**32)
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "pictures")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def folder(root: Path, cache: Path, **params: Any) -> ImageFolder:
    return ImageFolder(ImageFolderParams(path=str(root), cache=str(cache), **params))


def pixel_file(cache: Path) -> Path:
    (found,) = (path for path in (cache / "pixels").glob("*.npy") if "crc32" not in path.name)
    return found


def test_a_domain_tree_gives_domains_classes_and_exact_pixels(tree: Path, cache: Path) -> None:
    data = folder(tree, cache)
    assert data.domains == ("photo", "sketch")
    assert data.classes == ("cat", "dog")
    assert data.image_shape == (3, 8, 8)
    part = data.load("sketch", "train")
    assert part.ids == data.ids("sketch", "train") == part.groups
    assert set(part.domains) == {"sketch"}
    for name, image, label in zip(part.ids, part.images, part.labels, strict=True):
        assert np.array_equal(image.transpose(1, 2, 0), np.asarray(Image.open(tree / name)))
        assert data.classes[label] == name.split("/")[1]


def test_splits_are_disjoint_cover_everything_and_are_near_the_stated_shares(tmp_path: Path, cache: Path) -> None:
    data = folder(write_tree(tmp_path / "big", ("photo",), per_class=150), cache)
    parts = [data.ids("photo", split) for split in ("train", "validation", "test")]
    assert len(set().union(*parts)) == sum(map(len, parts)) == 300
    for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert abs(len(part) / 300 - share) < 0.08


def test_first_examples_are_nested_in_canonical_order(tree: Path, cache: Path) -> None:
    data = folder(tree, cache)
    whole = data.load("photo", "train")
    assert list(whole.ids) == sorted(whole.ids, key=canonical_rank)
    few = data.load("photo", "train", 3)
    assert few.ids == whole.ids[:3]
    assert np.array_equal(few.images, whole.images[:3])


def test_a_new_image_moves_no_other_image_to_another_split(tree: Path, cache: Path) -> None:
    before = folder(tree, cache)
    revision = before.revision
    for index in range(50, 60):
        write_image(tree / "photo" / "cat" / f"{index}.png", index)
    after = folder(tree, cache)
    for split in ("train", "validation", "test"):
        assert set(before.ids("photo", split)) <= set(after.ids("photo", split))
    assert after.revision != revision


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_a_split_tree_is_one_domain_named_after_the_root(tmp_path: Path, cache: Path, validation: str) -> None:
    data = folder(write_tree(tmp_path / "cifar", ("train", validation, "test"), 2), cache)
    assert data.domains == ("cifar",)
    for split, top in (("train", "train"), ("validation", validation), ("test", "test")):
        names = data.ids("cifar", split)
        assert len(names) == 4
        assert {name.split("/")[0] for name in names} == {top}
        assert data.load("cifar", split).ids == names


def test_a_split_tree_without_validation_holds_a_share_of_train_out(tmp_path: Path, cache: Path) -> None:
    root = write_tree(tmp_path / "cifar", ("train", "test"), 60)
    data = folder(root, cache, validation=0.25)
    train, validation = data.ids("cifar", "train"), data.ids("cifar", "validation")
    assert {name.split("/")[0] for name in (*train, *validation)} == {"train"}
    assert not set(train) & set(validation)
    assert len(train) + len(validation) == 120
    assert 15 <= len(validation) <= 45
    assert len(data.ids("cifar", "test")) == 120
    assert data.load("cifar", "validation").ids == validation
    assert folder(root, cache, validation=0.0).ids("cifar", "validation") == ()


def test_the_layout_can_be_set_by_hand(tmp_path: Path, cache: Path) -> None:
    root = write_tree(tmp_path / "odd", ("train", "test"), 2)
    assert folder(root, cache, layout="domain").domains == ("test", "train")
    with pytest.raises(DataError, match="not a split: photo"):
        _ = folder(write_tree(tmp_path / "odder", ("train", "photo"), 2), cache, layout="split").domains


def test_images_are_resized_to_their_centre(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "pictures" / "train" / "a" / "wide.png"
    write_image(path, 0, (24, 8))
    for interpolation, resample in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        data = folder(tmp_path / "pictures", cache, size=4, interpolation=interpolation)
        image = data.load("pictures", "train").images[0]
        assert image.shape == data.image_shape == (3, 4, 4)
        expected = np.asarray(Image.open(path).resize((12, 4), resample).crop((4, 0, 8, 4)))
        assert np.abs(image.transpose(1, 2, 0).astype(int) - expected).max() <= 1


def test_images_of_every_mode_become_rgb(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "modes" / "train" / "a"
    root.mkdir(parents=True)
    colour = Image.new("RGB", (4, 4), (255, 0, 0))
    for mode in ("L", "P", "RGBA", "CMYK", "1", "LA"):
        colour.convert(mode).save(root / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}")
    part = folder(tmp_path / "modes", cache).load("modes", "train")
    found = {
        name.split("/")[-1].split(".")[0]: tuple(image[:, 0, 0])
        for name, image in zip(part.ids, part.images, strict=True)
    }
    assert found["P"] == found["RGBA"] == found["CMYK"] == (255, 0, 0)
    assert found["L"] == found["LA"] == (76, 76, 76)


def test_hidden_and_foreign_files_are_ignored(tree: Path, cache: Path) -> None:
    before = folder(tree, cache).revision
    (tree / ".git" / "x").mkdir(parents=True)
    write_image(tree / ".git" / "x" / "y.png", 0)
    (tree / "photo" / "cat" / "._00.png").write_bytes(b"resource fork")
    (tree / "photo" / "cat" / "notes.txt").write_text("no image")
    (tree / "README.md").write_text("no image")
    assert folder(tree, cache).revision == before


def test_the_revision_follows_content_and_size_but_not_place_or_time(tree: Path, cache: Path, tmp_path: Path) -> None:
    before = folder(tree, cache).revision
    moved = tmp_path / "moved"
    tree.rename(moved)
    for path in moved.rglob("*.png"):
        os.utime(path, (1, 1))
    assert folder(moved, cache).revision == folder(moved, tmp_path / "other").revision == before
    assert folder(moved, cache, size=4).revision != before
    write_image(moved / "photo" / "cat" / "00.png", 99)
    os.utime(moved / "photo" / "cat" / "00.png", (2, 2))
    assert folder(moved, cache).revision != before


def test_files_of_known_size_and_time_are_not_read_again(tree: Path, cache: Path) -> None:
    for path in tree.rglob("*.png"):
        os.utime(path, (1, 1))
    before = folder(tree, cache).revision
    victim = tree / "photo" / "cat" / "00.png"
    victim.write_bytes(bytes(victim.stat().st_size))
    os.utime(victim, (1, 1))
    assert folder(tree, cache).revision == before


def test_a_file_changed_right_after_it_was_hashed_is_noticed(tree: Path, cache: Path) -> None:
    before = folder(tree, cache).revision
    victim = tree / "photo" / "cat" / "00.png"
    stamp = victim.stat().st_mtime_ns
    victim.write_bytes(bytes(victim.stat().st_size))
    os.utime(victim, ns=(stamp, stamp))
    assert folder(tree, cache).revision != before


def test_all_broken_files_are_named_in_one_error(tree: Path, cache: Path) -> None:
    (tree / "photo" / "cat" / "03.png").write_bytes(b"")
    (tree / "photo" / "dog" / "04.png").write_bytes(b"not an image at all")
    good = (tree / "sketch" / "dog" / "05.png").read_bytes()
    (tree / "sketch" / "dog" / "05.png").write_bytes(good[: len(good) // 2])
    write_image(tree / "sketch" / "cat" / "06.png", 0, (9, 7))
    Image.fromarray(np.zeros((8, 8), dtype=np.uint16)).save(tree / "sketch" / "cat" / "07.png")
    data = folder(tree, cache)
    with pytest.raises(DataError) as caught:
        data.load("photo", "train")
    message = str(caught.value)
    for name in ("photo/cat/03.png", "photo/dog/04.png", "sketch/dog/05.png"):
        assert name in message
    assert "5 of 48" in message
    assert "sketch/cat/06.png (is 9 x 7, others are 8 x 8; set 'size')" in message
    assert "sketch/cat/07.png (more than 8 bits" in message
    assert message.count("get it again or remove it") == 4
    assert "\n" not in message
    assert not list((cache / "pixels").glob("*.npy"))
    assert not list((cache / "pixels").glob("*.part"))


def test_links_must_stay_inside_and_lead_to_files(tree: Path, cache: Path, tmp_path: Path) -> None:
    (tree / "photo" / "cat" / "inside.png").symlink_to(tree / "photo" / "cat" / "00.png")
    assert "photo/cat/inside.png" in sum(
        (folder(tree, cache).ids("photo", s) for s in ("train", "validation", "test")), ()
    )
    write_image(tmp_path / "outside.png", 0)
    (tree / "photo" / "cat" / "escape.png").symlink_to(tmp_path / "outside.png")
    (tree / "photo" / "cat" / "nothing.png").symlink_to(tmp_path / "gone.png")
    (tree / "photo" / "loop").symlink_to(tree)
    (tree / "etc").symlink_to("/etc")
    with pytest.raises(DataError) as caught:
        _ = folder(tree, cache).domains
    message = str(caught.value)
    assert "photo/cat/escape.png is a link that leaves the root" in message
    assert "photo/cat/nothing.png is a link to nothing" in message
    assert "photo/loop is a link to a folder" in message
    assert "etc is a link that leaves the root" in message


def test_a_root_that_is_a_link_is_followed(tree: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tree)
    assert folder(tmp_path / "link", cache).revision == folder(tree, cache).revision


def test_an_empty_class_no_images_or_a_wrong_depth_are_clear_errors(tree: Path, cache: Path, tmp_path: Path) -> None:
    (tree / "photo" / "bird").mkdir()
    with pytest.raises(DataError, match="class folder photo/bird holds no image"):
        _ = folder(tree, cache).classes
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no image found; expected domain/class/file"):
        _ = folder(tmp_path / "empty", cache).classes
    with pytest.raises(DataError, match="no such folder"):
        _ = folder(tmp_path / "absent", cache).classes
    write_image(tmp_path / "flat" / "cat" / "1.png", 0)
    with pytest.raises(DataError, match=r"1 images are not inside domain/class/.* such as cat/1\.png"):
        _ = folder(tmp_path / "flat", cache).classes


def test_a_class_without_training_images_is_an_error(tmp_path: Path, cache: Path) -> None:
    root = write_tree(tmp_path / "splits", ("train", "test"), 1)
    write_image(root / "test" / "bird" / "1.png", 0)
    with pytest.raises(DataError, match="classes without a training image: bird"):
        _ = folder(root, cache).domains


def test_names_that_are_not_utf8_are_named(tree: Path, cache: Path) -> None:
    Path(os.fsdecode(os.fsencode(tree / "photo" / "cat") + b"/caf\xe9.png")).write_bytes(b"x")
    with pytest.raises(DataError, match="not UTF-8"):
        _ = folder(tree, cache).domains


def test_unknown_domains_are_named(tree: Path, cache: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'sketch'"):
        folder(tree, cache).ids("sketsh", "test")


def test_shares_that_leave_no_training_data_are_refused() -> None:
    with pytest.raises(ValueError, match="less than 1"):
        ImageFolderParams(path="x", validation=0.5, test=0.5)


@settings(max_examples=15, deadline=None)
@given(keep=st.integers(0, 4000))
def test_a_truncated_cache_is_named_and_kept(tmp_path_factory: pytest.TempPathFactory, keep: int) -> None:
    base = tmp_path_factory.mktemp("truncated")
    root, cache = write_tree(base / "pictures", per_class=4), base / "cache"
    folder(root, cache).load("photo", "train")
    file = pixel_file(cache)
    whole = file.read_bytes()
    assert len(whole) > 3000
    cut = whole[: min(keep, len(whole) - 1)]
    file.write_bytes(cut)
    with pytest.raises(CorruptRecordError, match=r"damaged .*; delete .* to decode"):
        folder(root, cache).load("photo", "train")
    assert file.read_bytes() == cut
    file.unlink()
    folder(root, cache).load("photo", "train")
    assert file.read_bytes() == whole


def test_a_flipped_bit_in_the_cache_is_named_with_its_image(tree: Path, cache: Path) -> None:
    part = folder(tree, cache).load("photo", "train")
    data = bytearray(pixel_file(cache).read_bytes())
    data[128 + 3 * 8 * 8 * 2 + 5] ^= 1
    pixel_file(cache).write_bytes(data)
    with pytest.raises(CorruptRecordError, match=rf"image {part.ids[2]} fails its checksum"):
        folder(tree, cache).load("photo", "train")
    assert len(folder(tree, cache).load("sketch", "train"))


def test_damaged_checksums_and_digest_lists_are_named(tree: Path, cache: Path) -> None:
    for path in tree.rglob("*.png"):
        os.utime(path, (1, 1))
    folder(tree, cache).load("photo", "train")
    checksums = next((cache / "pixels").glob("*.crc32.npy"))
    whole = checksums.read_bytes()
    checksums.write_bytes(whole[:-3])
    with pytest.raises(CorruptRecordError, match="damaged"):
        folder(tree, cache).load("photo", "train")
    checksums.unlink()
    with pytest.raises(CorruptRecordError, match="missing"):
        folder(tree, cache).load("photo", "train")
    checksums.write_bytes(whole)
    manifest = next((cache / "manifests").glob("*.json"))
    manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(CorruptRecordError, match="delete it to read the images again"):
        folder(tree, cache).load("photo", "train")


def test_loaded_images_can_be_changed_without_touching_the_cache(tree: Path, cache: Path) -> None:
    part = folder(tree, cache).load("photo", "train")
    before = pixel_file(cache).read_bytes()
    part.images[:] = 0
    del part
    assert pixel_file(cache).read_bytes() == before


def test_two_processes_at_once_share_one_decoding(tree: Path, cache: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tree), str(cache)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [worker.communicate()[0].split() for worker in workers]
    data = folder(tree, cache, size=8)
    assert [worker.returncode for worker in workers] == [0, 0]
    assert outputs[0] == outputs[1]
    assert outputs[0][1] == "False"
    assert pixel_file(cache).name == f"{data.revision}.npy"


def test_what_a_killed_decoding_left_behind_is_replaced(tree: Path, cache: Path) -> None:
    data = folder(tree, cache)
    (cache / "pixels").mkdir(parents=True)
    left_behind = cache / "pixels" / f"{data.revision}.part"
    left_behind.write_bytes(b"half")
    assert len(data.load("photo", "train"))
    assert not left_behind.exists()


def test_a_full_disk_is_one_clear_error_and_leaves_no_cache(tree: Path, cache: Path) -> None:
    code = (
        "import resource, sys\n"
        "from robusteval.data.image_folder import ImageFolder, ImageFolderParams\n"
        "from robusteval.schema.errors import DataError\n"
        "folder = ImageFolder(ImageFolderParams(path=sys.argv[1], cache=sys.argv[2]))\n"
        "folder.revision\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "try:\n    folder.load('photo', 'train')\n"
        "except DataError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tree), str(cache)]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "the image cache cannot be written" in out.stdout
    assert [path.suffix for path in (cache / "pixels").iterdir()] == [".lock"]


def test_a_cache_that_is_no_folder_is_a_clear_error(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="give another 'cache' folder"):
        folder(tree, tmp_path / "file").load("photo", "train")


@pytest.mark.shared
def test_pacs_is_read_as_it_is(shared: Path, cache: Path) -> None:
    data = folder(shared / "data" / "pacs", cache, size=32)
    assert data.domains == ("art_painting", "cartoon", "photo", "sketch")
    assert data.classes == ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
    splits = ("train", "validation", "test")
    assert sum(len(data.ids(domain, split)) for domain in data.domains for split in splits) == 9991
    assert data.load("photo", "test").images.shape[1:] == (3, 32, 32)


def test_a_pipe_called_like_an_image_is_refused_and_not_waited_for(tree: Path, cache: Path) -> None:
    os.mkfifo(tree / "photo" / "cat" / "pipe.png")
    with pytest.raises(DataError, match=r"photo/cat/pipe\.png is not a regular file"):
        _ = folder(tree, cache, size=8).classes


def test_a_large_picture_is_read_without_a_warning(tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    pictures = folder(tree, cache)
    assert pictures.image_shape == (3, 8, 8)
    assert len(pictures.load("photo", "train")) > 0


def test_a_class_in_one_domain_only_is_refused_and_can_be_kept(tree: Path, cache: Path) -> None:
    write_image(tree / "photo" / "bird" / "1.png", 0)
    write_image(tree / "sketch" / "dgo" / "1.png", 0)
    with pytest.raises(
        DataError, match=r"one domain only: photo/bird, sketch/dgo; rename or remove .*lone_classes: keep"
    ):
        folder(tree, cache).load("photo", "train")
    assert not cache.exists()
    assert folder(tree, cache, lone_classes="keep").classes == ("bird", "cat", "dgo", "dog")


def test_a_domain_without_images_is_named(tree: Path, cache: Path) -> None:
    (tree / "clipart" / "cat").mkdir(parents=True)
    (tree / "painting").mkdir()
    with pytest.raises(DataError, match=r"folder clipart holds no image; fill or remove it; folder painting holds no"):
        folder(tree, cache).load("photo", "train")
    assert not cache.exists()


def test_a_stretched_picture_keeps_all_of_itself(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "pictures" / "train" / "a" / "wide.png"
    write_image(path, 0, (24, 8))
    stretched, cut = (folder(tmp_path / "pictures", cache, size=4, fit=fit) for fit in ("stretch", "crop"))
    expected = np.asarray(Image.open(path).resize((4, 4), Image.Resampling.BILINEAR))
    assert np.array_equal(stretched.load("pictures", "train").images[0].transpose(1, 2, 0), expected)
    assert stretched.revision != cut.revision


def test_the_centre_of_a_picture_can_be_cut_out(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "pictures" / "train" / "a" / "square.png"
    write_image(path, 0, (16, 16))
    image = folder(tmp_path / "pictures", cache, size=8, centre=0.5).load("pictures", "train").images[0]
    assert np.array_equal(image.transpose(1, 2, 0), np.asarray(Image.open(path))[4:12, 4:12])


def test_options_of_domains_mean_nothing_where_folders_are_splits(tmp_path: Path, cache: Path) -> None:
    root = write_tree(tmp_path / "cifar", ("train", "test"), 2)
    with pytest.raises(DataError, match="says which image is in which split, so 'split' and 'sources' means nothing"):
        folder(root, cache, split="domainbed", sources=("cifar",)).ids("cifar", "train")
