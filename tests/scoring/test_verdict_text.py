from __future__ import annotations

import json

import numpy as np
import pytest

from robusteval.scoring import verdict_text
from robusteval.scoring.outcomes import Outcomes
from robusteval.scoring.verdicts import Measurement, Pair, Rule, judge


def _pair(losses, flags=(), row=""):
    base = np.ones((1, 400), dtype=bool)
    candidate = base.copy()
    candidate[0, :losses] = False
    sides = [
        Outcomes((0,), right, ("one",) * 400, tuple(map(str, range(400))), False, "d") for right in (base, candidate)
    ]
    return Pair(row, "r_id@0", "R_id linf-0.1", Measurement(sides[0]), Measurement(sides[1], frozenset(flags)))


def test_a_regression_is_a_table_with_the_reason():
    text = verdict_text.to_text(judge("old", "new", [_pair(40)], Rule()))
    lines = text.splitlines()
    assert lines[0] == "new against old: regressed"
    assert lines[2].split()[:6] == ["cell", "base", "candidate", "difference", "losses", "gains"]
    assert lines[3].startswith("R_id linf-0.1  100.0  90.0       -10.0 [")
    assert lines[3].split()[-5:-1] == ["40", "0", "400", "9.1e-13"]
    assert "R_id linf-0.1: regressed, 40 losses against 0 gains" in text
    assert "one-sided exact McNemar test, alpha 0.05 with Holm over 1 cell" in text


def test_rows_are_named_where_there_are_several():
    header, rows = verdict_text.to_rows(judge("a", "b", [_pair(0, row="erm"), _pair(0, row="sam")], Rule()))
    assert header[:2] == ["row", "cell"]
    assert [row[0] for row in rows] == ["erm", "sam"]


@pytest.mark.parametrize(
    ("losses", "flags", "heading"),
    [(0, (), "no regression"), (40, (), "regressed"), (0, ("nan-logits",), "suspect: a reason for doubt is new")],
)
def test_the_comment_for_a_pull_request_opens_with_the_verdict(losses, flags, heading):
    text = verdict_text.to_github(judge("old", "new", [_pair(losses, flags)], Rule()))
    assert text.startswith(f"### Robustness: {heading}\n")
    assert ("<details>" in text) == (heading == "no regression")
    assert "| R_id linf-0.1 | 100.0 |" in text


def test_a_bar_in_a_name_does_not_break_the_markdown():
    pair = _pair(0)
    odd = Pair("a|b", pair.column, pair.title, pair.base, pair.candidate)
    assert "| a\\|b | R_id" in verdict_text.to_markdown(judge("old", "new", [odd], Rule(margin=0.05)))


def test_the_json_has_every_number_and_the_verdict():
    found = json.loads(json.dumps(verdict_text.to_json(judge("old", "new", [_pair(4)], Rule(margin=0.05)))))
    assert found["verdict"] == "pass"
    assert found["cells"][0]["losses"] == 4
    assert found["cells"][0]["difference"]["value"] == pytest.approx(-0.01)
