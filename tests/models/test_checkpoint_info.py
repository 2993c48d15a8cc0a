from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from robusteval.models.checkpoint_info import CheckpointInfo, check_fits, file_kind, inspect_checkpoint
from robusteval.schema.errors import CheckpointError
from robusteval.schema.types import Component


def _info(**fields: Any) -> CheckpointInfo:
    given: dict[str, Any] = {
        "architecture": Component(name="small-cnn", params={"width": 4}),
        "classes": 2,
        "class_names": ("cat", "dog"),
        "input_shape": (1, 8, 8),
        "mean": (0.5,),
        "std": (0.25,),
    }
    return CheckpointInfo(**(given | fields))


def _file(header: object, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text


def _with_metadata(entry: object) -> bytes:
    return _file({"__metadata__": {"robusteval": entry if isinstance(entry, str) else json.dumps(entry)}})


GOOD = {"format_version": 1, "info": _info().model_dump(mode="json"), "digest": "0" * 64}


@pytest.mark.parametrize("as_file", [False, True])
def test_the_header_alone_says_what_a_checkpoint_is(tmp_path: Path, as_file: bool) -> None:
    data = _with_metadata(GOOD)
    path = tmp_path / "model.safetensors"
    path.write_bytes(data + b"tensors that nobody looks at")
    assert inspect_checkpoint(path if as_file else data) == _info()


def test_reading_a_header_imports_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(_with_metadata(GOOD))
    code = (
        "import sys; from pathlib import Path; from robusteval.models.checkpoint_info import inspect_checkpoint; "
        f"assert inspect_checkpoint(Path({str(path)!r})).classes == 2; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", "empty"),
        (b"PK\x03\x04rest", "zip"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9", "pickle"),
        (b"\x80\x04\x95abc", "pickle"),
        (b"  <!DOCTYPE html>", "html"),
        (b"\x89HDF\r\n\x1a\n", "hdf5"),
        (_file({"a": 1}), "safetensors"),
        (_file(b"{" + b" " * (0x280 - 1)), "safetensors"),
        (_file(b"{}", length=2**60), "unknown"),
        (b"hello", "unknown"),
    ],
)
def test_file_kinds_are_told_apart_by_their_first_bytes(head: bytes, kind: str) -> None:
    assert file_kind(head) == kind


@pytest.mark.parametrize("data", [b"PK\x03\x04" + bytes(30), b"\x80\x02\x8a\nl\xfc\x9cF\xf9" + bytes(30)])
def test_a_pickle_is_refused_with_the_way_to_convert_it(data: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"old\.pth: this is a pickle .*robusteval import-weights old\.pth"):
        inspect_checkpoint(data, source="old.pth")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"<html>", "is a web page"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"hello", "not a safetensors file"),
        (_file({"a": 1}, length=50), "cut off inside its header"),
        (_file(b'{"a": '), "header of the file is damaged"),
        (_file(b"{" + b'"a":[' * 100_000), "header of the file is damaged"),
        (_file(b'{"\xff": 1}'), "header of the file is damaged"),
        (_file({"__metadata__": 3}), "header of the file is damaged"),
        (_file({}), "not what they are .*import-weights"),
        (_file({"__metadata__": {"format": "pt"}}), "not what they are .*import-weights"),
        (_with_metadata("{"), "metadata is damaged"),
        (_with_metadata("[" * 100_000), "metadata is damaged"),
        (_with_metadata([1]), "metadata is damaged"),
        (_with_metadata({**GOOD, "format_version": 2}), r"format 2 is newer than this robusteval reads \(1\)"),
        (_with_metadata({**GOOD, "digest": "x"}), "metadata is damaged: digest"),
        (_with_metadata({"format_version": 1}), "metadata is damaged: info: Field required"),
        (_file({"__metadata__": {"robusteval": 5}}), "metadata is damaged"),
    ],
)
def test_damaged_headers_are_named(data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        inspect_checkpoint(data, source="m.safetensors")
    assert str(caught.value).startswith("m.safetensors: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.safetensors: cannot read the checkpoint: No such file"):
        inspect_checkpoint(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="cannot read the checkpoint"):
        inspect_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"classes": 1},
        {"classes": 3},
        {"mean": (0.5, 0.5)},
        {"std": ()},
        {"std": (0.0,)},
        {"mean": (float("nan"),)},
        {"input_shape": (1, 0, 8)},
    ],
)
def test_facts_that_contradict_each_other_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        _info(**fields)


@pytest.mark.parametrize("classes", [2, ("cat", "dog"), ["cat", "dog"]])
def test_a_checkpoint_fits_data_of_its_own_classes_and_shape(classes: Any) -> None:
    check_fits(_info(), classes, (1, 8, 8), source="start.safetensors")
    check_fits(_info(class_names=None), classes, (1, 8, 8), source="start.safetensors")


@pytest.mark.parametrize(
    ("classes", "shape", "message"),
    [
        (3, (1, 8, 8), r"has 2 classes \(cat, dog\), the data has 3;"),
        (("a", "b", "c"), (1, 8, 8), r"2 classes \(cat, dog\), the data has 3 \(a, b, c\)"),
        (("dog", "cat"), (1, 8, 8), r"classes \(cat, dog\) are not those of the data \(dog, cat\)"),
        (2, (3, 8, 8), r"images of shape \(1, 8, 8\), the data has \(3, 8, 8\)"),
    ],
)
def test_data_that_does_not_fit_is_named(classes: Any, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        check_fits(_info(), classes, shape, source="start.safetensors")
    assert str(caught.value).startswith("start.safetensors: ")
