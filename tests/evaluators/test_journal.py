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
        journal.extend(name, kept, {"zero-gradient": len(kept)}, len(kept), Budget(forward=3, backward=1))
    again = Journal(scratch, "q")
    for name in {name for name, _ in batches}:
        assert again.part(name) == journal.part(name)
    assert again.budget == Budget(forward=3 * len(batches), backward=len(batches))
    assert Journal(scratch, "another").budget == Budget()


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
