"""The digits: one split for all domains, pinned pixels, the same images in every process."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from robusteval.data.digits import SOURCES, Digits, DigitsParams, checked_sources
from robusteval.data.domains import DOMAINS
from robusteval.data.imageset import Split
from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import DataError, UnknownNameError

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

PINNED = {
    "upright": "69fb2341be5947e1",
    "rotated": "eb89820fac7d9d82",
    "inverted": "f7f064cefabbe337",
    "coloured": "eb6cfb7ddc57831e",
    "textured": "1320f330be283abe",
    "stroke": "d0b160638c3ef374",
    "blurred": "9b590a30667892bf",
    "occluded": "1307fd46a647bedc",
}
"""Start of the SHA-256 of the first 50 test images of each domain; another value needs another revision."""


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits(DigitsParams())


def groups(names: tuple[str, ...]) -> list[str]:
    return [name.partition("/")[2] for name in names]


def test_splits_have_the_stated_sizes_and_cover_every_source_once(digits: Digits) -> None:
    found = {split: groups(digits.ids("upright", split)) for split in SPLITS}
    assert {split: len(names) for split, names in found.items()} == {"train": 1077, "validation": 270, "test": 450}
    assert sorted(name for names in found.values() for name in names) == [f"{index:04d}" for index in range(SOURCES)]


@pytest.mark.parametrize("split", SPLITS)
def test_every_domain_shows_the_same_sources_in_the_same_order(digits: Digits, split: Split) -> None:
    assert len({tuple(groups(digits.ids(domain, split))) for domain in digits.domains}) == 1


def test_labels_are_those_of_the_sources(digits: Digits) -> None:
    part = digits.load("rotated", "validation")
    truth = load_digits().target
    assert part.labels.tolist() == [truth[int(group)] for group in part.groups]
    assert part.classes == tuple("0123456789")


@pytest.mark.parametrize("split", SPLITS)
def test_every_split_holds_every_class(digits: Digits, split: Split) -> None:
    counts = np.bincount(digits.load("upright", split).labels, minlength=10)
    assert counts.min() >= 0.07 * counts.sum()


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_first_examples_are_nested_and_do_not_depend_on_how_many_are_loaded(digits: Digits, domain: str) -> None:
    few, more = digits.load(domain, "test", 7), digits.load(domain, "test", 40)
    assert few.ids == more.ids[:7] == digits.ids(domain, "test")[:7]
    assert np.array_equal(few.images, more.images[:7])
    assert few.images.shape == (7, 3, 16, 16)
    assert set(few.domains) == {domain}


def test_upright_images_are_the_scanned_ones(digits: Digits) -> None:
    part = digits.load("upright", "test", 30)
    counts = load_digits().images[[int(group) for group in part.groups]]
    halved = part.images[:, 0].reshape(30, 8, 2, 8, 2).mean(axis=(2, 4))
    inner = np.s_[:, 1:-1, 1:-1]
    assert np.corrcoef(halved[inner].ravel(), counts[inner].ravel())[0, 1] > 0.95


def test_mean_and_std_are_those_of_the_upright_training_images(digits: Digits) -> None:
    pixels = digits.load("upright", "train").images / 255.0
    assert pixels.mean() == pytest.approx(digits.mean[0], abs=1e-3)
    assert pixels.std() == pytest.approx(digits.std[0], abs=1e-3)
    assert len(set(digits.mean)) == len(set(digits.std)) == 1


def test_unknown_domains_are_named_with_near_matches(digits: Digits) -> None:
    with pytest.raises(UnknownNameError, match="'rotate'; did you mean 'rotated'"):
        digits.ids("rotate", "train")


def test_other_pixels_are_refused() -> None:
    bundle = load_digits()
    images = np.array(bundle.images)
    images[5, 3, 3] += 1
    with pytest.raises(DataError, match="SHA-256"):
        checked_sources(images, bundle.target)
    with pytest.raises(DataError, match="SHA-256"):
        checked_sources(bundle.images, bundle.target[::-1])


@pytest.mark.parametrize("domain", DOMAINS)
def test_images_are_the_pinned_ones(digits: Digits, domain: str) -> None:
    assert sha256_hex(digits.load(domain, "test", 50).images.tobytes())[:16] == PINNED[domain]


def test_names_come_without_torch_or_scikit_learn_and_images_are_the_same_in_another_process(digits: Digits) -> None:
    code = (
        "import sys, hashlib\n"
        "from robusteval.data.slices import make_slice, load_slice, open_dataset\n"
        "from robusteval.schema.cells import Component\n"
        "component = Component(name='digits')\n"
        "data = make_slice(component, open_dataset(component), ('textured',), 'test', 20)\n"
        "print(sorted({'torch', 'sklearn'} & set(sys.modules)))\n"
        "print(hashlib.sha256(load_slice(data).images.tobytes()).hexdigest())\n"
        "print('torch' in sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1234"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert out.stdout.split() == ["[]", sha256_hex(digits.load("textured", "test", 20).images.tobytes()), "False"]
