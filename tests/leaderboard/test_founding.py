from __future__ import annotations

from collections.abc import Callable

import pytest

from robusteval.leaderboard.boards import Board
from robusteval.leaderboard.entries import Entry
from robusteval.leaderboard.founding import found_board
from robusteval.schema.errors import UsageError
from robusteval.schema.plans import StoredPlan

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


def test_only_finished_columns_are_ranked(make_entry: MakeEntry) -> None:
    entry = make_entry("one")
    records = {record.cell_key: record for record in entry.records if record.cell.data.domains == ("id",)}
    assert found_board(plan_of(entry), records, "b").keys == ("a_id", "r_id")
    with pytest.raises(UsageError, match="unknown column 'a_ood'"):
        found_board(plan_of(entry), records, "b", order=("a_ood",))
    with pytest.raises(UsageError, match="no finished cell"):
        found_board(plan_of(entry), {}, "b")


def test_a_suite_with_folds_has_no_common_examples(make_entry: MakeEntry) -> None:
    with pytest.raises(UsageError, match="has folds"):
        found_board(plan_of(make_entry("one"), fold="sketch"), {}, "b")
