from __future__ import annotations

from collections.abc import Callable

import pytest

from robusteval.leaderboard.boards import Board
from robusteval.leaderboard.entries import Entry
from robusteval.leaderboard.founding import found_board
from robusteval.schema.cells import EvalCell
from robusteval.schema.errors import UsageError
from robusteval.schema.plans import StoredPlan
from robusteval.schema.types import Component

MakeEntry = Callable[..., Entry]


def plan_of(*entries: Entry, fold: str = "") -> StoredPlan:
    rows = tuple(row.model_copy(update={"fold": fold}) for entry in entries for row in entry.rows)
    threats = tuple(record.cell.threat for record in entries[0].records if record.cell.threat is not None)[:1]  # type: ignore[union-attr]
    return StoredPlan(
        suite="synthetic", version=3, suite_digest="0" * 64, summary="What is ranked.", rows=rows,
        id_domains=("id",), ood_domains=("ood",), threats=threats,
    )  # fmt: skip


def test_the_rules_are_what_the_suite_measured(board: Board, make_entry: MakeEntry) -> None:
    entries = [make_entry("one"), make_entry("two")]
    records = {record.cell_key: record for entry in entries for record in entry.records}
    found = found_board(plan_of(*entries), records, "mine")
    assert (found.name, found.title, found.version) == ("mine", "What is ranked.", 1)
    assert found.suite is not None
    assert (found.suite.name, found.suite.version) == ("synthetic", 3)
    assert found.ids == board.ids
    assert found.threats == board.threats
    assert found.order == ("r_id", "a_id")
    assert found.minimum.seeds == 2
    assert found.minimum.attacks == ("pgd",)
    assert found.minimum.examples == {"a_id": 60, "r_id@0": 60, "a_ood": 60, "r_ood@0": 60}


def test_members_of_an_ensemble_are_demanded_by_their_names(make_entry: MakeEntry) -> None:
    entry = make_entry("one")
    names = {"pgd": "autoattack/apgd-ce", "robust": "robust", "clean": "clean"}
    records = {}
    for record in entry.records:
        found = record.evaluation
        assert found is not None
        outcomes = {names[name]: bits for name, bits in found.outcomes.items()}
        records[record.cell_key] = record.model_copy(
            update={"evaluation": found.model_copy(update={"outcomes": outcomes})}
        )
    board = found_board(plan_of(entry), records, "b")
    assert board.minimum.attacks == ("autoattack/apgd-ce",)
    assert Board.model_validate_json(board.model_dump_json()) == board


def test_only_finished_columns_are_ranked(make_entry: MakeEntry) -> None:
    entry = make_entry("one")
    records = {record.cell_key: record for record in entry.records if record.cell.data.domains == ("id",)}
    assert found_board(plan_of(entry), records, "b").keys == ("a_id", "r_id")
    with pytest.raises(UsageError, match="unknown column 'a_ood'"):
        found_board(plan_of(entry), records, "b", order=("a_ood",))
    with pytest.raises(UsageError, match="no finished cell"):
        found_board(plan_of(entry), {}, "b")


def test_a_suite_with_folds_fixes_the_examples_of_each_fold(make_entry: MakeEntry) -> None:
    first, second = make_entry("one"), make_entry("two")
    records = {record.cell_key: record for entry in (first, second) for record in entry.records}
    plan = plan_of(first, fold="sketch")
    plan = plan.model_copy(update={"rows": (*plan.rows, *plan_of(second, fold="photo").rows)})
    found = found_board(plan, records, "b")
    assert found.ids == {}
    assert set(found.folds) == {"sketch", "photo"}
    assert set(found.folds["photo"]) == {"a_id", "r_id@0", "a_ood", "r_ood@0"}
    assert found.minimum.seeds == 2


def test_a_column_that_one_fold_lacks_is_not_ranked(make_entry: MakeEntry) -> None:
    first, second = make_entry("one"), make_entry("two")
    records = {record.cell_key: record for record in first.records}
    records |= {record.cell_key: record for record in second.records if record.cell.data.domains == ("id",)}
    plan = plan_of(first, fold="sketch")
    plan = plan.model_copy(update={"rows": (*plan.rows, *plan_of(second, fold="photo").rows)})
    assert found_board(plan, records, "b").keys == ("a_id", "r_id")


def test_rows_that_were_attacked_in_different_ways_make_no_board(make_entry: MakeEntry) -> None:
    entry = make_entry("one")
    records = {record.cell_key: record for record in entry.records}
    plan = plan_of(entry)
    key = plan.rows[0].cells["r_id@0"]
    cell = records[key].cell
    assert isinstance(cell, EvalCell)
    other = cell.model_copy(update={"evaluator": Component(name="adversarial", params={"steps": 1})})
    records[key] = records[key].model_copy(update={"cell": other})
    with pytest.raises(UsageError, match="by different protocols in r_id"):
        found_board(plan, records, "b")
