"""Datasets of the Hugging Face hub from a local folder, where their library is installed; else one clear line."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robusteval.data.hugging_face import HuggingFace, HuggingFaceParams
from robusteval.schema.errors import DataError

installed = pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="the library datasets is absent")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    for split, n in (("train", 20), ("test", 6)):
        for label in ("cat", "dog"):
            for index in range(n):
                path = tmp_path / "pictures" / split / label / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (index, 0, 200 if label == "dog" else 0)).save(path)
    return tmp_path / "pictures"


def hugging_face(repo: Path | str, cache: Path, **params: Any) -> HuggingFace:
    return HuggingFace(HuggingFaceParams(repo=str(repo), cache=str(cache), **params))


def test_without_the_library_one_line_says_what_to_install(tmp_path: Path) -> None:
    if importlib.util.find_spec("datasets") is not None:
        with pytest.raises(DataError, match=r"cannot be loaded by the library datasets: .*is the name right"):
            _ = hugging_face(tmp_path / "absent", tmp_path).domains
        return
    with pytest.raises(DataError, match=r"pip install 'robusteval\[huggingface\]'"):
        _ = hugging_face("flwrlabs/pacs", tmp_path).domains


@installed
@pytest.mark.filterwarnings("ignore")
def test_rows_become_examples_with_a_validation_share(root: Path, tmp_path: Path) -> None:
    data = hugging_face(root, tmp_path / "cache")
    assert data.domains == ("data",)
    assert data.classes == ("cat", "dog")
    parts = {split: data.load("data", split) for split in ("train", "validation", "test")}
    assert len(parts["train"]) + len(parts["validation"]) == 40
    assert len(parts["test"]) == 12
    for part in parts.values():
        assert np.array_equal(part.images[:, 2, 0, 0] == 200, part.labels == 1)
    assert data.revision == hugging_face(root, tmp_path / "other").revision
    assert data.revision != hugging_face(root, tmp_path / "other", size=4).revision


@installed
@pytest.mark.filterwarnings("ignore")
def test_unknown_columns_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown column 'labels'; did you mean 'label'"):
        _ = hugging_face(root, tmp_path, label="labels").domains
