from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

Command = Callable[..., tuple[int, str, str]]

SUITE = """\
name: left-out
version: 1
summary: Weights chosen by domains that were left out.
train: {data: digits, domains: [upright, inverted, blurred], folds: leave-one-out, architecture: small-cnn}
methods:
  - {method: erm, params: {select: RULE}}
evaluate: {threats: [{epsilon: 0.1, attacks: [fgsm]}]}
"""


def test_trainings_that_only_select_are_counted_before_anything_runs(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(SUITE.replace("RULE", "leave-one-domain-out"))
    code, out, _ = command("plan", path, "--store", tmp_path / "store")
    assert code == 0
    assert "trainings: 3 that the table shows, and 3 only to select by leave-one-domain-out" in out
    assert "erm seed 0 without upright and inverted: train, for selection" in out
    assert json.loads(command("plan", path, "--store", tmp_path / "store", "--json")[1])["selecting"] == 3
    path.write_text(SUITE.replace("RULE", "best-validation"))
    assert "only to select" not in command("plan", path, "--store", tmp_path / "store")[1]
