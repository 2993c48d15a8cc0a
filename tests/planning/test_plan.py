from __future__ import annotations

import pytest

from robusteval.planning.expand import expand
from robusteval.planning.expanded import ExpandedCell, Expansion
from robusteval.planning.loader import load_suite
from robusteval.planning.only import Filter
from robusteval.planning.plan import Plan, make_plan
from robusteval.schema.errors import UsageError

SUITE = """\
name: tiny
version: 1
summary: A suite.
seeds: [0, 1]
train: {data: digits, domains: [upright], architecture: small-cnn}
methods:
  - {method: erm, params: {epochs: 1}}
  - {method: aft, start: erm, params: {epochs: 1}}
  - {method: lp-ft, label: probed, start: aft}
evaluate:
  id: {examples: 10}
  ood: {domains: [rotated], examples: 10}
  threats:
    - {epsilon: 8/255, attacks: [pgd]}
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Expansion:
    path = tmp_path_factory.mktemp("suite") / "s.yaml"
    path.write_text(SUITE)
    return expand(load_suite(path))


def item(tiny: Expansion, title: str) -> ExpandedCell:
    return next(cell for cell in tiny.cells if cell.title == title)


def plan(tiny: Expansion, states: dict[str, str], only: str | None = None) -> Plan:
    """A plan for a store in which the cells with these titles have these states."""
    by_key = {item(tiny, title).key: state for title, state in states.items()}
    return make_plan(
        tiny, lambda key: (by_key.get(key, "missing"), "said so"), Filter.parse(only) if only is not None else None
    )


def states(found: Plan) -> dict[str, str]:
    return {cell.title: cell.state for cell in found.cells}


def test_in_an_empty_store_everything_is_pending(tiny: Expansion) -> None:
    found = plan(tiny, {})
    assert set(states(found).values()) == {"pending"}
    others = {"done": 0, "running": 0, "stale": 0, "failed": 0, "blocked": 0}
    assert found.totals == {"cells": 30, "pending": 30, **others}
    assert found.passes_left == sum(cell.passes for cell in found.cells)


def test_a_reason_says_what_a_cell_waits_for(tiny: Expansion) -> None:
    reasons = {cell.title: cell.reason for cell in plan(tiny, {"erm seed 0: train": "done"}).cells}
    assert reasons["aft seed 0: train"] == "said so"
    assert reasons["aft seed 1: train"] == "waits for 'erm seed 1: train'"


@pytest.mark.parametrize("state", ["failed", "corrupt"])
def test_everything_behind_a_cell_that_failed_is_blocked(tiny: Expansion, state: str) -> None:
    found = plan(tiny, {"erm seed 0: train": "done", "aft seed 0: train": state})
    by_title = states(found)
    assert by_title["aft seed 0: train"] == state
    assert by_title["aft seed 0: clean"] == by_title["probed seed 0: train"] == "blocked"
    assert by_title["probed seed 0: shifted"] == "blocked"
    assert by_title["erm seed 0: clean"] == by_title["probed seed 1: train"] == "pending"
    assert found.totals["failed"] == 1
    assert found.totals["blocked"] == 4 + 1 + 4
    blocked = next(cell for cell in found.cells if cell.title == "probed seed 0: shifted")
    assert blocked.reason == "needs 'probed seed 0: train', which is blocked"


def test_a_result_counts_even_if_what_it_came_from_is_gone(tiny: Expansion) -> None:
    by_title = states(plan(tiny, {"erm seed 0: clean": "done", "erm seed 0: train": "failed"}))
    assert by_title["erm seed 0: clean"] == "done"


@pytest.mark.parametrize(
    ("only", "titles"),
    [
        ("label=erm,seed=0,role=a_id", {"erm seed 0: train", "erm seed 0: clean"}),
        ("method=erm,evaluator=train", {"erm seed 0: train", "erm seed 1: train"}),
        (
            "label=prob*,seed=1,evaluator=shift",
            {"erm seed 1: train", "aft seed 1: train", "probed seed 1: train", "probed seed 1: shifted"},
        ),
        ("method=lp-ft,role=train,seed=0", {"erm seed 0: train", "aft seed 0: train", "probed seed 0: train"}),
        ("label=erm,role=r_id", {f"erm seed {s}: {r}" for s in (0, 1) for r in ("train", "attacked (linf-8/255)")}),
        ("role=r_id@7", set()),
    ],
)
def test_a_filter_keeps_matching_cells_and_what_they_need(tiny: Expansion, only: str, titles: set[str]) -> None:
    assert set(states(plan(tiny, {}, only))) == titles


def test_a_field_given_twice_matches_either(tiny: Expansion) -> None:
    assert {cell.title for cell in plan(tiny, {}, "role=train,label=erm,label=aft").cells} == {
        f"{label} seed {seed}: train" for label in ("erm", "aft") for seed in (0, 1)
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rift", "is not FIELD=PATTERN"),
        ("", "is not FIELD=PATTERN"),
        ("method=", "is not FIELD=PATTERN"),
        ("method=rift,,seed=0", "is not FIELD=PATTERN"),
        ("metod=rift", "did you mean 'method'"),
    ],
)
def test_a_filter_that_says_nothing_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Filter.parse(text)
