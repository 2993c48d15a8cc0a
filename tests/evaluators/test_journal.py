from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robusteval.evaluators.journal import BLOB, Journal
from robusteval.schema.errors import CorruptRecordError
from robusteval.schema.records import Budget, Flag
from robusteval.store.scratch import Scratch

BATCHES = st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.booleans(), max_size=20)), max_size=8)


@given(BATCHES)
@settings(max_examples=30, deadline=None)
def test_what_was_saved_is_read_back(tmp_path_factory, batches) -> None:
    scratch = Scratch(tmp_path_factory.mktemp("journal"))
    journal = Journal(scratch, "q")
    for name, kept in batches:
        places = dict(enumerate(kept, start=journal.part(name).done))
        journal.settle(name, places, {"zero-gradient": len(kept)}, len(kept), Budget(forward=3, backward=1))
    again = Journal(scratch, "q")
    for name in {name for name, _ in batches}:
        assert again.part(name) == journal.part(name)
    assert again.budget == Budget(forward=3 * len(batches), backward=len(batches))
    assert Journal(scratch, "another").budget == Budget()


@given(st.permutations(list(range(12))), st.lists(st.integers(1, 5), min_size=1, max_size=6), st.booleans())
@settings(max_examples=30, deadline=None)
def test_verdicts_in_any_order_end_up_in_the_order_of_the_part(tmp_path_factory, order, sizes, reopened) -> None:
    scratch = Scratch(tmp_path_factory.mktemp("journal"))
    journal, done = Journal(scratch, "q"), 0
    for size in [*sizes, 12]:
        journal = Journal(scratch, "q") if reopened else journal
        places = order[done : done + size]
        assert sorted(journal.part("a").missing(12)) == sorted(order[done:])
        journal.settle("a", {place: place % 3 == 0 for place in places}, {"zero-gradient": 1}, len(places), Budget())
        done += len(places)
        assert journal.part("a").done == done
    part = Journal(scratch, "q").part("a")
    assert part.kept == [place % 3 == 0 for place in range(12)]
    assert (part.ahead, part.attacked, part.symptoms["zero-gradient"]) == ({}, 12, len(sizes) + 1)


def test_flags_are_settled_once_and_may_be_none() -> None:
    journal = Journal(None, "q")
    assert journal.flags is None
    journal.settle_flags([], Budget())
    assert journal.flags == []


def test_flags_survive_with_their_cost(tmp_path) -> None:
    flag = Flag(code="x", severity="info", evidence="1 of 2", next_step="look")
    Journal(Scratch(tmp_path), "q").settle_flags([flag], Budget(forward=7))
    again = Journal(Scratch(tmp_path), "q")
    assert again.flags == [flag]
    assert again.budget == Budget(forward=7)


def test_a_damaged_journal_is_named(tmp_path) -> None:
    Journal(Scratch(tmp_path), "q").settle_flags([], Budget())
    path = tmp_path / BLOB
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CorruptRecordError, match=BLOB):
        Journal(Scratch(tmp_path), "q")


@pytest.mark.parametrize(
    "change",
    [[], 3, {}, {"budget": [1]}, {"parts": {"a": {}}}, {"parts": {"a": {"done": 9, "kept": "", "symptoms": {}}}}, "x"],
)
def test_a_journal_of_another_form_is_named(tmp_path, change) -> None:
    scratch = Scratch(tmp_path)
    Journal(scratch, "q").settle_flags([], Budget())
    saved = scratch.get_json(BLOB)
    scratch.put_json(BLOB, {**saved, **change} if isinstance(change, dict) and change else change)
    with pytest.raises(CorruptRecordError, match=BLOB):
        Journal(scratch, "q")


def test_a_journal_that_is_no_json_is_named(tmp_path) -> None:
    Scratch(tmp_path).put(BLOB, b"{")
    with pytest.raises(CorruptRecordError, match=BLOB):
        Journal(Scratch(tmp_path), "q")
