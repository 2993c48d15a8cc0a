from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import robusteval
import robusteval.testing.checks
from robusteval.data.digits import Digits, DigitsParams

pytest_plugins = ["pytester"]

SUITE = """\
name: shop
version: 1
summary: What a shop asks of its digit reader.
train: {data: digits, domains: [upright], architecture: small-cnn}
methods: [{method: erm}]
evaluate:
  id: {examples: 300, robust_examples: 60}
  ood: {domains: [rotated], examples: 60, robust_examples: 20}
  threats:
    - {epsilon: 0.02, attacks: [fgsm]}
"""

MODEL = """\
import torch
from safetensors.torch import load_file
from torch import nn


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(768, 10)

    def forward(self, images):
        return self.linear(images.flatten(1))


def load(lost=0.0):
    '''The shop's reader; `lost` makes it confuse ones with sevens that often.'''
    reader = Reader()
    reader.load_state_dict(load_file(WEIGHTS))
    reader.linear.bias.data[7] += lost
    return reader
"""

Run = Callable[..., pytest.RunResult]


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a linear digit reader."""
    found = Digits(DigitsParams()).load("upright", "train")
    inputs = torch.from_numpy(found.images[:].copy()).flatten(1).double() / 255
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=torch.float64)], dim=1)
    targets = nn.functional.one_hot(torch.from_numpy(found.labels.copy()), 10).double()
    solution = torch.linalg.solve(inputs.T @ inputs + torch.eye(769), inputs.T @ targets).float().T * 20
    parts = {"weight": solution[:, :-1].contiguous(), "bias": solution[:, -1].contiguous()}
    path = tmp_path_factory.mktemp("weights") / "reader.safetensors"
    save_file({f"linear.{name}": tensor for name, tensor in parts.items()}, path)
    return path


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Everything a check imports. Inner sessions forget what they import, and some of it aborts the second time."""
    suite = tmp_path_factory.mktemp("suite") / "shop.yaml"
    suite.write_text(SUITE)
    robusteval.evaluate(nn.Sequential(nn.Flatten(), nn.Linear(768, 10)), suite, n=5, check_input=False)
    assert robusteval.testing.checks


@pytest.fixture
def project(
    pytester: pytest.Pytester, weights: Path, imported: None, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """A user's repository with a model and a suite; tests are added by the test."""
    for name in ("CI", "ROBUSTEVAL_STORE"):
        monkeypatch.delenv(name, raising=False)
    pytester.makepyfile(reader=MODEL.replace("WEIGHTS", repr(str(weights))))
    pytester.path.joinpath("shop.yaml").write_text(SUITE)
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")
    pytester.syspathinsert()
    return pytester


@pytest.fixture
def check(project: pytest.Pytester) -> Run:
    """Run the project's tests with the plug-in; `loss` is how much the reader of this run has lost."""
    known = any(point.name == "robusteval" for point in entry_points(group="pytest11"))
    plugin = () if known else ("-p", "robusteval.testing.plugin")

    def call(*arguments: str, body: str | None = None, lost: float = 0.0, subprocess: bool = False) -> pytest.RunResult:
        text = body or TEST
        project.makepyfile(test_reader=text.replace("LOST", str(lost)))
        run = project.runpytest_subprocess if subprocess else project.runpytest_inprocess
        return run(*plugin, *arguments)

    return call


TEST = """\
import reader


def test_reader(robusteval_check):
    robusteval_check(reader.load(LOST), suite="./shop.yaml", baseline="main", cells=["a_id"], sensitivity=0.05)
"""
