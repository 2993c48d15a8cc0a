"""Slices name examples exactly, and a cell gets those examples back or an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from robusteval.data.slices import load_slice, make_slice, open_dataset
from robusteval.schema.cells import DataSlice, EvalCell, WeightsStart
from robusteval.schema.digest import json_digest
from robusteval.schema.errors import DataError, UnknownNameError, UsageError
from robusteval.schema.types import Component

DIGITS = Component(name="digits")


def write_pictures(root: Path, shade: int = 0) -> Component:
    for domain in ("a", "b"):
        for index in range(20):
            path = root / domain / "x" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (index, shade, 0)).save(path)
    return Component(name="image-folder", params={"path": str(root), "cache": str(root.parent / "cache")})


def test_a_slice_survives_json_and_gives_the_same_examples() -> None:
    made = make_slice(DIGITS, open_dataset(DIGITS), ["rotated", "upright"], "test", 5)
    read = DataSlice.model_validate_json(made.model_dump_json())
    assert read == made
    loaded = load_slice(read)
    assert (len(loaded), loaded.ids_digest) == (made.n, made.ids_digest)
    assert loaded.domain_counts == (("rotated", 5), ("upright", 5))


def test_without_a_number_a_slice_is_the_whole_split() -> None:
    made = make_slice(DIGITS, open_dataset(DIGITS), ["blurred"], "validation")
    assert made.n == len(load_slice(made)) == 270


def test_parameters_are_resolved_with_their_defaults(tmp_path: Path) -> None:
    component = write_pictures(tmp_path / "pictures")
    made = make_slice(component, open_dataset(component), ["a"], "train", 2)
    assert made.dataset.params["interpolation"] == "bilinear"
    assert open_dataset(made.dataset).revision == made.revision


@pytest.mark.parametrize(
    ("domains", "per_domain", "error", "message"),
    [
        (["rotatd"], None, UnknownNameError, "did you mean 'rotated'"),
        (["upright", "upright"], None, DataError, "given twice"),
        ([], None, DataError, "no domain is given"),
        (["upright"], 451, DataError, "451 examples were asked for, but domain 'upright' has 450"),
    ],
)
def test_what_a_dataset_does_not_have_is_refused(
    domains: list[str], per_domain: int | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_slice(DIGITS, open_dataset(DIGITS), domains, "test", per_domain)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    component = write_pictures(tmp_path / "pictures")
    component = Component(name=component.name, params=component.params | {"validation": 0.0})
    with pytest.raises(DataError, match="domain 'a' has no example in its validation split"):
        make_slice(component, open_dataset(component), ["a"], "validation")


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (Component(name="digits", params={"size": 3}), "dataset 'digits': unknown parameter 'size'"),
        (Component(name="image-folder"), "parameter 'path' is missing"),
        (Component(name="image-folder", params={"path": "x", "size": 0}), "parameter 'size' is 0; .*greater than 0"),
        (Component(name="image-folder", params={"path": "x", "sise": 8}), "'sise'; did you mean 'size'"),
        (Component(name="image-folder", params={"path": "x", "test": 0.9}), "together must be less than 1"),
    ],
)
def test_wrong_parameters_are_one_line(component: Component, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        open_dataset(component)
    assert "\n" not in str(caught.value)


def test_unknown_datasets_are_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        open_dataset(Component(name="digit"))


def test_changed_content_is_not_loaded(tmp_path: Path) -> None:
    component = write_pictures(tmp_path / "pictures")
    made = make_slice(component, open_dataset(component), ["a", "b"], "train", 3)
    assert np.array_equal(load_slice(made).images, load_slice(made).images)
    write_pictures(tmp_path / "pictures", shade=7)
    with pytest.raises(DataError, match="changed since this cell was planned"):
        load_slice(made)


def test_another_list_of_examples_is_not_loaded() -> None:
    made = make_slice(DIGITS, open_dataset(DIGITS), ["upright"], "test", 5)
    with pytest.raises(DataError, match="not those that this cell was planned with"):
        load_slice(made.model_copy(update={"ids_digest": "0" * 64}))


def cell_key(data: DataSlice) -> str:
    measured = EvalCell(
        model=WeightsStart(weights="0" * 64), data=data, evaluator=Component(name="clean"), protocol=1, seed=0
    )
    return EvalCell.model_validate_json(measured.model_dump_json()).key


def test_a_folder_that_moved_is_the_same_question(tmp_path: Path) -> None:
    here = write_pictures(tmp_path / "here" / "pictures")
    there = write_pictures(tmp_path / "there" / "photos")
    slices = [make_slice(one, open_dataset(one), ["a", "b"], "train", 3) for one in (here, there)]
    assert slices[0].dataset.params["path"] != slices[1].dataset.params["path"]
    assert cell_key(slices[0]) == cell_key(slices[1])
    write_pictures(tmp_path / "there" / "photos", shade=1)
    changed = make_slice(there, open_dataset(there), ["a", "b"], "train", 3)
    assert cell_key(changed) != cell_key(slices[0])


def test_shifts_of_a_folder_that_moved_are_the_same_question(tmp_path: Path) -> None:
    keys = []
    for name in ("here", "there"):
        of = write_pictures(tmp_path / name / "pictures")
        shift = {"name": "contrast", "params": {"preset": "cifar10-c", "severity": 1}}
        params = {"of": of.model_dump(), "domains": ["a"], "shifts": [shift]}
        component = Component(name="shifted", params=params)
        dataset = open_dataset(component)
        keys.append(cell_key(make_slice(component, dataset, dataset.domains, "test", 2)))
    assert keys[0] == keys[1]


def test_a_dataset_that_is_linked_has_the_key_it_had_before_places_were_left_out() -> None:
    made = make_slice(DIGITS, open_dataset(DIGITS), ["upright"], "test", 5)
    assert "located" not in made.model_dump(mode="json")
    absent = made.model_copy(update={"dataset": Component(name="pacs", params={"path": None, "cache": None})})
    assert json_digest(absent.model_dump(mode="json")) == json_digest(
        absent.model_dump(mode="json", context={"canonical": True})
    )


@pytest.mark.parametrize("name", ["size", "of.params.size", "path", "of.params.path"])
def test_only_places_that_are_there_are_left_out_of_a_key(name: str) -> None:
    made = make_slice(DIGITS, open_dataset(DIGITS), ["upright"], "test", 5)
    with pytest.raises(ValidationError, match="located"):
        DataSlice.model_validate({**made.model_dump(), "located": [name]})
