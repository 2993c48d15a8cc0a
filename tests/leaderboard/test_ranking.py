from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robusteval.leaderboard.boards import Board, Column, TieRule
from robusteval.leaderboard.entries import Entry, Value
from robusteval.leaderboard.evidence import Evidence
from robusteval.leaderboard.importers.robustbench import import_robustbench
from robusteval.leaderboard.ranking import rank_board, shown_value
from robusteval.leaderboard.recount import column_values
from robusteval.stats.ties import pairwise_intervals

MakeEntry = Callable[..., Entry]


def plain_board(board: Board, **changed: object) -> Board:
    return board.model_copy(update={"order": ("a_id",), "pairs": (("a_id", "r_id"),), **changed})


def test_reported_entries_never_stand_among_measured_ones(
    board: Board, make_entry: MakeEntry, make_reported: MakeEntry
) -> None:
    entries = [make_reported("best", a_id=1.0, r_id=1.0), make_entry("one"), make_entry("two", level=0.3)]
    measured, reported = rank_board(board, entries, Evidence(board))
    assert [entry.id for entry in measured.entries] == ["one", "two"]
    assert [entry.id for entry in reported.entries] == ["best"]
    assert (measured.places["one"].rank, reported.places["best"].rank) == (1, 1)


def test_measured_entries_are_compared_example_by_example(board: Board, make_entry: MakeEntry) -> None:
    entries = [make_entry("one", level=0.95), make_entry("two", level=0.94), make_entry("three", level=0.3)]
    (group,) = rank_board(board, entries, Evidence(board))
    assert group.test == "paired outcomes"
    assert group.places["one"].rank == group.places["two"].rank == 1
    assert group.places["three"].rank == 3
    assert (group.places["three"].low, group.places["three"].high) == (3, 3)
    (without,) = rank_board(board, entries)
    assert without.test == "intervals"


def test_an_entry_without_a_deciding_column_is_shown_last_and_not_ranked(
    board: Board, make_reported: MakeEntry
) -> None:
    entries = [make_reported("a", r_id=0.9), make_reported("b", a_id=0.1, r_id=0.1)]
    (group,) = rank_board(board, entries)
    assert [entry.id for entry in group.entries] == ["b", "a"]
    assert group.places["a"].rank is None


def test_numbers_without_intervals_tie_only_where_they_are_equal(board: Board, make_reported: MakeEntry) -> None:
    entries = [make_reported(name, a_id=value) for name, value in (("a", 0.5), ("b", 0.5), ("c", 0.4999))]
    (group,) = rank_board(plain_board(board), entries)
    assert group.test == "values"
    assert [group.places[name].rank for name in "abc"] == [1, 1, 3]


def test_a_prescribed_number_of_examples_gives_an_interval_and_leaves_the_entry_as_published(board: Board) -> None:
    ruled = plain_board(board, ties=TieRule(examples=10_000))
    value = Value(value=0.5, written="50")
    shown = shown_value(ruled, "a_id", value)
    assert (shown.low, shown.high) == pytest.approx((0.4902, 0.5098), abs=1e-4)
    assert (shown.n, shown.interval, value.low) == (10_000, "wilson, prescribed n", None)
    assert shown_value(board, "a_id", value) == value


def test_less_is_better_where_the_board_says_so(board: Board, make_reported: MakeEntry) -> None:
    columns = (Column(key="mce", title="mCE", unit="number", higher_is_better=False), Column(key="a_id", title="A"))
    ruled = plain_board(board, columns=columns, order=("mce",), pairs=(("a_id", "mce"),), ids={}, suite=None)
    entries = [make_reported("high", mce=90.0, a_id=0.5), make_reported("low", mce=60.0, a_id=0.5)]
    (group,) = rank_board(ruled, entries)
    assert [entry.id for entry in group.entries] == ["low", "high"]
    assert group.fronts[0].on == {"low"}


def test_fronts_come_with_their_chance_and_what_each_model_adds(board: Board, make_entry: MakeEntry) -> None:
    entries = [make_entry("good", level=0.95), make_entry("bad", level=0.2)]
    (group,) = rank_board(board, entries, Evidence(board))
    front = group.fronts[0]
    assert front.pair == ("a_id", "r_id")
    assert front.on == {"good"}
    assert front.probability == {"good": 1.0, "bad": 0.0}
    assert front.contribution["bad"] == 0.0
    assert front.contribution["good"] > 0.0
    volume, low, high = front.volume
    assert low <= volume <= high


def test_evidence_says_what_the_columns_say(board: Board, make_entry: MakeEntry) -> None:
    entries = [make_entry("one"), make_entry("two", level=0.5, seeds=(0, 1, 2))]
    evidence = Evidence(board)
    for column in board.cells:
        panel = evidence.panel(entries, column)
        sums = evidence.sums(entries, column)
        assert panel is not None
        assert sums is not None
        for index, entry in enumerate(entries):
            value = column_values(board, entry)[column].value
            assert panel.right[index].mean() == pytest.approx(value)
            assert sums[index].sum() / (6 * 60) == pytest.approx(value)  # 6 is common to 2 and 3 seeds, 60 examples


def test_entries_on_other_examples_are_not_paired(board: Board, make_entry: MakeEntry) -> None:
    other = board.model_copy(update={"ids": {**board.ids, "r_id@0": "0" * 64}})
    assert Evidence(other).sums([make_entry("one")], "r_id") is None
    assert Evidence(board).sums([make_entry("one")], "unknown") is None


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "tied", "pairs"),
    [("cifar10-linf", 83, 98), ("cifar10-l2", 12, 20), ("cifar100-linf", 32, 37), ("imagenet-linf", 21, 29)],
)
def test_published_order_and_indistinguishable_neighbours_are_reproduced(
    shared: Path, name: str, tied: int, pairs: int
) -> None:
    found = import_robustbench(shared / "data" / "results" / "robustbench_model_info" / name.partition("-")[0])
    board = found.boards[name]
    (group,) = rank_board(board, found.entries[name], fronts=False)
    stated = [float(_key(entry)) for entry in group.entries]
    assert stated == sorted(stated, reverse=True)
    shown = [shown_value(board, "r_best", entry.columns["r_best"]) for entry in group.entries]
    near = [
        pairwise_intervals(*np.array([(value.value, value.low, value.high) for value in two], dtype=float).T)[0] >= 0.05
        for two in itertools.pairwise(shown)
    ]
    assert len(near) == pairs
    # The published counts rest on another approximation of the interval; one pair lies between the two.
    assert abs(sum(near) - tied) <= 1


def _key(entry: Entry) -> str:
    assert entry.origin is not None
    fields = entry.origin.fields
    return str(fields.get("external") or fields["autoattack_acc"])
