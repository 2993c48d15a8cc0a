"""The worked example: a user's repository whose check passes, and fails once the model is five points worse."""

from __future__ import annotations

import shutil
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import sklearn.datasets
from torch import nn

import robusteval
import robusteval.testing.checks

pytest_plugins = ["pytester"]

SHOP = Path(__file__).parent / "shop"
WORSE = """

class Worse(Reader):
    \"\"\"Misreads one image in twenty, chosen by its content.\"\"\"

    def forward(self, images):
        logits = super().forward(images)
        chosen = (logits.detach().sum(dim=1) * 1e4).round().long() % 20 == 0
        return torch.where(chosen[:, None], -logits, logits)


Worse.__qualname__ = "Reader"
_load = load


def load():
    worse = Worse()
    worse.load_state_dict(_load().state_dict())
    return worse.eval()
"""


@pytest.fixture(scope="session")
def imported() -> None:
    """Everything a check imports. Inner sessions forget what they import, and some of it aborts the second time."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    robusteval.evaluate(network, SHOP / "shop.yaml", n=5, check_input=False)
    assert robusteval.testing.checks and sklearn.datasets


@pytest.fixture
def shop(imported: None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    for name in ("CI", "ROBUSTEVAL_STORE"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(SHOP, pytester.path, dirs_exist_ok=True)
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\npythonpath = .\n")
    return pytester


def test_a_planted_drop_of_five_points_fails_the_check(shop):
    known = any(point.name == "robusteval" for point in entry_points(group="pytest11"))
    plugin = () if known else ("-p", "robusteval.testing.plugin")
    first = shop.runpytest_inprocess(*plugin)
    first.assert_outcomes(failed=1)
    first.stdout.fnmatch_lines(["*accept it with: robusteval baseline save reader*"])
    shop.runpytest_inprocess(*plugin, "--robusteval-update").assert_outcomes(passed=1)
    shop.runpytest_inprocess(*plugin, "--robusteval-strict").assert_outcomes(passed=1)
    source = shop.path / "reader.py"
    source.write_text(source.read_text() + WORSE)
    last = shop.runpytest_inprocess(*plugin)
    last.assert_outcomes(failed=1)
    last.stdout.fnmatch_lines(["*Reader against baseline reader: regressed*", "A_id *regressed", "R_id linf-0.02 *"])
