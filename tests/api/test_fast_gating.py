from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import robusteval
from robusteval.schema.errors import CellError, UsageError
from robusteval.scoring.baseline_cell import BaselineError
from robusteval.scoring.baseline_evidence import EVIDENCE, read_evidence, write_evidence
from robusteval.scoring.baselines import load_baseline, write_baseline
from robusteval.scoring.sides import MismatchError
from robusteval.store.columns import read_columns

SUITE = """\
name: fast
version: 1
summary: Enough examples to decide, and a protocol that is too dear to run whole.
train: {data: digits, domains: [upright], architecture: {name: small-cnn, params: {width: 4}}}
methods: [{method: erm}]
evaluate:
  id: {examples: 256, robust_examples: 256}
  ood: {domains: [rotated], examples: 20, robust_examples: 10}
  threats:
    - {epsilon: 0.03, attacks: [{name: pgd, params: {steps: 40, restarts: 2}}], keep: uint8}
"""


class Forgetful(nn.Module):
    """Errs on one image in `every`, chosen by its content."""

    def __init__(self, network: nn.Module, every: int) -> None:
        super().__init__()
        self.network, self.every = network, every

    def forward(self, images):
        logits = self.network(images)
        # Coarse, so that small perturbations do not change which image is chosen.
        chosen = (images.mean(dim=(1, 2, 3)) * 40).floor().long() % self.every == 0
        return torch.where(chosen[:, None], -logits, logits)


Forgetful.__qualname__ = "Sequential"


@pytest.fixture(scope="session")
def suite(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fast") / "fast.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="session")
def accepted(suite, network, tmp_path_factory) -> Path:
    """A baseline with its adversarial images beside it."""
    folder = tmp_path_factory.mktemp("baselines") / "main"
    found = robusteval.evaluate(network, suite, cells=["r_id"], check_input=False)
    write_evidence(folder, found.baseline_cells("main"), found.store)
    write_baseline(folder, found.baseline_cells("main"), None)
    return folder


def baseline_robust(folder) -> np.ndarray:
    (cell,) = load_baseline(folder).cells
    return np.array(cell.record.evaluation.outcomes["robust"].unpack())


def test_the_same_model_is_clear_within_the_budget_and_says_what_was_done(accepted, suite, network):
    found = robusteval.fast_gate(network, accepted, suite, sensitivity=0.1)
    assert found.verdict == "clear"
    assert found.passes <= 31
    clean, replay, short, *_ = found.findings.parts
    assert (clean.what, clean.examples, replay.what, short.what) == ("clean", 256, "replay", "apgd-ce")
    broken = int((~baseline_robust(accepted)).sum()) - clean.broke
    assert replay.examples == replay.broke == replay.passes == broken > 20
    assert "the candidate's accuracy is an upper bound" in str(found)
    # Nothing that stands under the full protocol may fall here.
    assert not (baseline_robust(accepted) & ~found.findings.stands).sum() > 2


def test_a_drop_is_proved_before_the_whole_budget_is_spent(accepted, suite, network):
    found = robusteval.fast_gate(Forgetful(copy.deepcopy(network), 5), accepted, suite)
    assert found.verdict == "regressed"
    assert found.comparison.cells[0].losses > found.comparison.cells[0].gains
    assert found.passes < 3


def test_the_verdict_of_a_finished_protocol_is_that_of_the_whole_check(accepted, suite, network):
    found = robusteval.fast_gate(network, accepted, suite, passes=1000, sensitivity=0.05)
    assert found.findings.complete
    assert found.verdict == "pass"
    assert np.array_equal(found.findings.stands, baseline_robust(accepted))
    assert [part.what for part in found.findings.parts] == ["clean", "replay", "full protocol"]
    assert robusteval.fast_gate(network, accepted, suite, passes=1000, sensitivity=0.001).verdict == "inconclusive"


def test_the_narrowest_survivors_are_attacked_first(accepted, suite, network):
    found = robusteval.fast_gate(network, accepted, suite, passes=80, sensitivity=0.1).findings
    (cell,) = load_baseline(accepted).cells
    columns, _ = read_columns(read_evidence(accepted, cell.record.evaluation.details))
    margins = columns["margin"][0]
    attacked, waiting = found.stands & found.settled, found.stands & ~found.settled
    assert attacked.sum() >= 10
    assert waiting.sum() >= 10
    assert margins[attacked].max() <= margins[waiting].min()


def test_without_stored_images_the_short_attack_starts_at_once(suite, network, accepted, tmp_path):
    folder = tmp_path / "main"
    write_baseline(folder, load_baseline(accepted).cells, None)
    found = robusteval.fast_gate(network, folder, suite, sensitivity=0.1)
    assert [part.what for part in found.findings.parts][:2] == ["clean", "apgd-ce"]


class Blind(Forgetful):
    """Gives no gradient."""

    @torch.no_grad()
    def forward(self, images):
        return self.network(images)


class Counting(Forgetful):
    """Answers otherwise every other time."""

    calls = 0

    def forward(self, images):
        self.calls += 1
        return self.network(images) * (1 + self.calls % 2)


Blind.__qualname__ = Counting.__qualname__ = "Sequential"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Blind, "no gradient leads from the logits of example upright/"),
        (Counting, "asked again about example upright/"),
    ],
)
def test_a_model_that_cannot_be_judged_is_refused_with_the_examples(accepted, suite, network, kind, words):
    with pytest.raises(CellError, match=words):
        robusteval.fast_gate(kind(network, 1), accepted, suite)


def test_changed_evidence_is_named(suite, network, accepted, tmp_path):
    folder = tmp_path / "main"
    (folder / EVIDENCE).mkdir(parents=True)
    for path in (accepted / EVIDENCE).iterdir():
        (folder / EVIDENCE / path.name).write_bytes(path.read_bytes() + b"x")
    for path in accepted.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(BaselineError, match="changed after it was accepted"):
        robusteval.fast_gate(network, folder, suite)


def test_other_questions_and_missing_baselines_are_refused(accepted, suite, gate, network, tmp_path):
    with pytest.raises(MismatchError, match="different questions"):
        robusteval.fast_gate(network, accepted, gate)
    with pytest.raises(MismatchError, match="Sequential -> Linear"):
        robusteval.fast_gate(nn.Linear(768, 10), accepted, suite)
    with pytest.raises(UsageError, match="there is no baseline"):
        robusteval.fast_gate(network, tmp_path / "none", suite)
    with pytest.raises(UsageError, match="no attacked cell 'a_id'"):
        robusteval.fast_gate(network, accepted, suite, cell="a_id")
    with pytest.raises(UsageError, match="allow at least 1 pass"):
        robusteval.fast_gate(network, accepted, suite, passes=0)
