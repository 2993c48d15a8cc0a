"""How many workers help: known answers on plans small enough to follow by hand, and bounds that hold for all."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from robusteval.planning.plan import Plan, PlannedCell
from robusteval.planning.workers import estimate_workers
from robusteval.schema.types import Resources


def plan_of(*cells: tuple[str, int, tuple[str, ...]], done: tuple[str, ...] = ()) -> Plan:
    unused: Any = None
    planned = tuple(
        PlannedCell(name, name, unused, "done" if name in done else "pending", "", needs, passes, "kind", "train")
        for name, passes, needs in cells
    )
    return Plan("suite", 1, planned, Resources(), unused, {})


def test_independent_cells_keep_as_many_workers_busy_as_there_are_cells() -> None:
    found = estimate_workers(plan_of(*((f"c{index}", 10, ()) for index in range(6))))
    assert (found.total, found.longest, found.useful) == (60, 10, 6)
    assert found.spans == {1: 60, 2: 30, 4: 20, 6: 10}


def test_a_chain_keeps_one_worker_busy() -> None:
    found = estimate_workers(plan_of(("a", 5, ()), ("b", 5, ("a",)), ("c", 5, ("b",))))
    assert (found.useful, found.longest, found.chain, found.spans) == (1, 15, ("a", "b", "c"), {1: 15})


def test_work_runs_dry_where_the_longest_chain_is_the_run() -> None:
    # The long chain takes 100; all the rest fits beside it on one more worker.
    cells = [("a", 50, ()), ("b", 50, ("a",)), *((f"c{index}", 10, ()) for index in range(9))]
    found = estimate_workers(plan_of(*cells))
    assert (found.useful, found.longest, found.chain) == (2, 100, ("a", "b"))
    assert found.spans == {1: 190, 2: 100}


def test_finished_cells_count_for_nothing() -> None:
    found = estimate_workers(plan_of(("a", 1000, ()), ("b", 10, ("a",)), ("c", 10, ("a",)), done=("a",)))
    assert (found.total, found.longest, found.useful) == (20, 10, 2)


def test_a_plan_that_is_done_needs_nobody() -> None:
    found = estimate_workers(plan_of(("a", 7, ()), done=("a",)))
    assert (found.total, found.chain, found.useful) == (0, (), 1)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    cells: list[tuple[str, int, tuple[str, ...]]] = []
    for index in range(draw(st.integers(1, 12))):
        needs = draw(st.lists(st.sampled_from([name for name, _, _ in cells]), max_size=2)) if cells else []
        cells.append((f"c{index}", draw(st.integers(0, 20)), tuple(dict.fromkeys(needs))))
    return plan_of(*cells)


@given(plans())
def test_no_number_of_workers_beats_the_chain_or_a_fair_share(plan: Plan) -> None:
    found = estimate_workers(plan)
    assert found.longest <= found.total == found.spans[1]
    for workers, span in found.spans.items():
        assert max(found.longest, found.total / workers) <= span <= found.total
    # Five percent for where more workers bring nothing, and five for the fewest that do as well.
    assert found.spans[found.useful] <= 1.05 * 1.05 * found.longest + 1e-9
