from __future__ import annotations

import json

import pytest

from robusteval.store.store import Store

READER = """\
import torch
from torch import nn


class Reader(nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :10] * 3.0


def load():
    return Reader()


reader = Reader()
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    (tmp_path / "shopreader.py").write_text(READER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("what", ["load", "Reader", "reader"])
def test_a_factory_a_class_or_a_network_of_a_module_is_measured(command, micro, elsewhere, what):
    code, out, _ = command(
        "eval", f"shopreader:{what}", "--suite", micro, "--examples", "10", "--store", elsewhere / "store", "--json"
    )
    assert code == 0
    (row,) = json.loads(out)
    assert (row["method"], row["a_id"]["n"], row["r_ood"]["n"]) == ("Reader", 10, 8)


def test_a_model_that_raises_is_one_line_with_the_examples(command, micro, elsewhere):
    (elsewhere / "broken.py").write_text(READER.replace("return images", "return images / images.colour"))
    code, out, err = command("eval", "broken:load", "--suite", micro, "--store", elsewhere / "store")
    assert (code, out) == (3, "")
    assert len(err.splitlines()) == 1
    assert "AttributeError in the model: 'Tensor' object has no attribute 'colour'; while measuring clean on " in err


def test_a_checkpoint_gets_the_outcomes_that_the_suite_gave_its_row(command, micro, finished, tmp_path):
    place = Store.open(finished)
    row = place.get_plan("micro").rows[0]
    checkpoint = tmp_path / "erm.safetensors"
    checkpoint.write_bytes(place.get_artefact(place.get(row.train_key).training.weights))
    code, out, _ = command("eval", checkpoint, "--suite", micro, "--store", tmp_path / "store", "--device", "cpu")
    assert code == 0
    assert "small-cnn" in out
    found = {record.evaluation.outcomes["clean"].bits for record in Store.open(tmp_path / "store").records()}
    assert found == {place.get(key).evaluation.outcomes["clean"].bits for key in row.cells.values()}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "names no model; give a .safetensors file"),
        (("nosuchmodule:load",), "there is no module 'nosuchmodule'"),
        (("shopreader:laod",), "module 'shopreader' has no 'laod'"),
        (("timm:resnet_18",), "did you mean"),
        (("shopreader:load", "--mean", "a,b"), "--mean 'a,b': give numbers with commas"),
        (("shopreader:load", "--value-range", "3"), "give two numbers"),
    ],
)
def test_what_is_no_model_is_one_line(command, micro, elsewhere, arguments, words):
    code, out, err = command("eval", *arguments, "--suite", micro)
    assert (code, out) == (2, "")
    assert words in err
