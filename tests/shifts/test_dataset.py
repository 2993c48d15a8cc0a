from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robusteval.data.computed import ComputedImages
from robusteval.data.imageset import ImageSet
from robusteval.data.slices import load_slice, make_slice, open_dataset
from robusteval.schema.errors import DataError, UnknownNameError, UsageError
from robusteval.schema.specs import ShiftSpec
from robusteval.schema.types import Component, JsonValue
from robusteval.shifts.base import build_shift
from robusteval.shifts.groups import GROUPS, expand_shifts

CPU = torch.device("cpu")


def shifted(*shifts: JsonValue, domains: tuple[str, ...] = ("upright",), seed: int = 0) -> Component:
    params: dict[str, JsonValue] = {"of": "digits", "domains": list(domains), "shifts": list(shifts), "seed": seed}
    return Component(name="shifted", params=params)


def noise(severity: int) -> JsonValue:
    return {"name": "gaussian_noise", "params": {"preset": "cifar10-c", "severity": severity}}


def load(component: Component, per_domain: int = 12) -> ImageSet:
    dataset = open_dataset(component)
    return load_slice(make_slice(component, dataset, dataset.domains, "test", per_domain))


def pixels(images: ImageSet) -> torch.Tensor:
    assert isinstance(images.images, ComputedImages)
    return images.images.all(CPU)


def test_each_shift_is_a_domain_of_the_same_examples() -> None:
    found = load(shifted(noise(1), noise(5)))
    assert found.domain_counts == (("gaussian_noise-1", 12), ("gaussian_noise-5", 12))
    assert found.groups[:12] == found.groups[12:]
    assert np.array_equal(found.labels[:12], found.labels[12:])
    assert all(name.endswith("@gaussian_noise-1") for name in found.ids[:12])


def test_images_are_those_of_the_shift_on_the_clean_examples_under_their_own_keys() -> None:
    component = shifted(noise(3), seed=7)
    found = load(component)
    clean = open_dataset(Component(name="digits")).load("upright", "test", 12)
    shift = build_shift(open_dataset(component).params.shifts[0])
    images, keys = torch.from_numpy(np.asarray(clean.images)), torch.from_numpy(clean.keys)
    assert torch.equal(pixels(found), shift(images, keys=keys, seed=7))


def test_what_an_example_looks_like_does_not_depend_on_how_many_are_asked_for_or_in_which_order() -> None:
    many, few = load(shifted(noise(2), noise(4)), 40), load(shifted(noise(4)), 5)
    assert torch.equal(pixels(many)[40:45], pixels(few))
    order = np.random.default_rng(0).permutation(80)
    assert torch.equal(pixels(many.take(order)), pixels(many)[torch.from_numpy(order)])


def test_several_clean_domains_give_names_with_both() -> None:
    dataset = open_dataset(shifted(noise(1), domains=("upright", "inverted")))
    assert dataset.domains == ("upright/gaussian_noise-1", "inverted/gaussian_noise-1")


def test_the_revision_changes_with_shift_severity_and_seed() -> None:
    revisions = {
        open_dataset(component).revision
        for component in (shifted(noise(1)), shifted(noise(2)), shifted(noise(1), seed=1), shifted(noise(1), noise(2)))
    }
    assert len(revisions) == 4


def test_parameters_are_written_out_so_that_equal_questions_have_equal_keys() -> None:
    short = open_dataset(shifted(noise(3))).params
    long = open_dataset(Component(name="shifted", params=short.model_dump(mode="json"))).params
    assert short == long
    assert short.shifts[0].params["mode"] == "replay"


def test_mistakes_are_named() -> None:
    with pytest.raises(DataError, match="two of the shifts are called 'gaussian_noise-1'"):
        _ = open_dataset(shifted(noise(1), noise(1))).domains
    with pytest.raises(UnknownNameError, match="gausian_noise"):
        open_dataset(shifted({"name": "gausian_noise", "params": {"preset": "cifar10-c"}}))
    with pytest.raises(UnknownNameError, match="shifted domain"):
        open_dataset(shifted(noise(1))).ids("fog-3", "test")


def test_a_list_of_shifts_becomes_one_component_a_severity_with_the_preset_of_the_image_size() -> None:
    found = expand_shifts([ShiftSpec(name="contrast", severities=(1, 4))], side=32)
    assert [component.params["severity"] for component in found] == [1, 4]
    assert {component.params["preset"] for component in found} == {"cifar10-c"}
    whole = expand_shifts([ShiftSpec(name="contrast")], side=224)
    assert [component.params["severity"] for component in whole] == [1, 2, 3, 4, 5]
    assert {component.params["preset"] for component in whole} == {"imagenet-c"}
    assert expand_shifts([ShiftSpec(name="contrast", params={"preset": "imagenet-c"})], side=32)[0] == whole[0]


def test_groups_are_written_out() -> None:
    found = expand_shifts([ShiftSpec(name="common", severities=(3,))], side=32)
    assert tuple(component.name for component in found) == GROUPS["common"]
    assert len(set(GROUPS["common"]) | set(GROUPS["extra"])) == 19


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([ShiftSpec(name="contrast"), ShiftSpec(name="contrast", severities=(2,))], "listed twice"),
        ([ShiftSpec(name="contrast", severities=(2,), params={"severity": 2})], "keep one"),
        ([ShiftSpec(name="contrast", severities=(9,))], "severity"),
    ],
)
def test_lists_that_cannot_be_meant_are_refused(specs: list[ShiftSpec], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        expand_shifts(specs, side=32)


def test_a_domain_with_fewer_classes_keeps_its_subset_under_a_shift(tmp_path: Path) -> None:
    for part, classes in (("val", ("n01", "n02", "n03")), ("imagenet-a", ("n01", "n03"))):
        for name in classes:
            (tmp_path / "in" / part / name).mkdir(parents=True)
            Image.new("RGB", (16, 16), (40, 80, 120)).save(tmp_path / "in" / part / name / "0.png")
    of: dict[str, JsonValue] = {
        "path": str(tmp_path / "in"),
        "cache": str(tmp_path / "cache"),
        "complete": False,
        "size": 16,
    }
    params = {"of": {"name": "imagenet", "params": of}, "domains": ["val", "a"], "shifts": [noise(1)]}
    component = Component(name="shifted", params=params)
    dataset = open_dataset(component)
    plain, fewer = dataset.domains
    assert (dataset.class_subset(plain), dataset.class_subset(fewer)) == (None, (0, 2))
    loaded = load_slice(make_slice(component, dataset, dataset.domains, "test"))
    assert loaded.subsets == {fewer: (0, 2)}
