from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from robusteval.planning.budget import limited
from robusteval.planning.expand import expand
from robusteval.planning.loader import load_suite
from robusteval.schema.errors import UsageError

SUITE = """\
name: tiny
version: 3
summary: A suite.
train: {data: digits, domains: [upright], architecture: small-cnn}
methods: [{method: erm, params: {epochs: 1}}]
evaluate:
  id: {examples: 40, robust_examples: 10}
  ood: {domains: [rotated], examples: 20, robust_examples: 5}
  threats:
    - {epsilon: 8/255, attacks: [autoattack]}
    - {norm: l2, epsilon: 0.5, attacks: [fgsm]}
"""


def load(tmp_path: Path, text: str = SUITE):
    (tmp_path / "s.yaml").write_text(text)
    return load_suite(tmp_path / "s.yaml")


def test_only_attacked_cells_change_and_their_cost_is_limited(tmp_path: Path) -> None:
    suite = load(tmp_path)
    plain, cut = expand(suite), expand(limited(suite, 100))
    assert (cut.stored.suite, cut.stored.version) == ("tiny+budget=100", 3)
    for before, after in zip(plain.cells, cut.cells, strict=True):
        assert (before.key == after.key) == (before.evaluator != "adversarial")
        assert after.passes <= before.passes
        if after.evaluator == "adversarial":
            assert after.cell.evaluator.params["budget"] == 100  # type: ignore[union-attr]
            assert after.passes <= 100 * after.cell.data.n


def test_a_suite_that_names_no_budget_has_the_keys_it_had(tmp_path: Path) -> None:
    named = SUITE.replace("attacks: [autoattack]", "attacks: [autoattack], cascade: true")
    first, second = expand(load(tmp_path)), expand(load(tmp_path, named))
    assert [cell.key for cell in first.cells] == [cell.key for cell in second.cells]
    assert all("budget" not in cell.cell.evaluator.params for cell in first.cells if cell.evaluator == "adversarial")  # type: ignore[union-attr]


def test_a_threat_may_say_that_every_attack_sees_everything(tmp_path: Path) -> None:
    named = SUITE.replace("attacks: [autoattack]", "attacks: [apgd-ce, square], cascade: false")
    cells = [cell.cell for cell in expand(load(tmp_path, named)).cells if cell.role == "r_id@0"]
    assert [cell.evaluator.params["cascade"] for cell in cells] == [False]  # type: ignore[union-attr]


def test_a_name_that_becomes_too_long_is_refused(tmp_path: Path) -> None:
    suite = load(tmp_path)
    long = replace(suite, spec=suite.spec.model_copy(update={"name": "n" * 78}))
    with pytest.raises(UsageError, match=r"--budget.*longer than a suite's may be"):
        limited(long, 100)
