"""The order in which cells start, and that a hundred thousand of them cost a hundred thousand times as much as one."""

from __future__ import annotations

import sys
import tracemalloc
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusteval.execution import EXECUTORS
from robusteval.execution.estimate import Estimator
from robusteval.execution.events import CellSummary, CellTask
from robusteval.execution.executors import ExecutorSetup
from robusteval.execution.runner import RunOptions, run_plan
from robusteval.execution.schedule import Schedule
from robusteval.planning.expand import expand
from robusteval.planning.loader import load_suite
from robusteval.planning.plan import Plan, PlannedCell, make_plan
from robusteval.schema.types import Resources
from robusteval.store.store import Store


def cell(key: str, passes: int = 1, needs: tuple[str, ...] = (), content: Any = None) -> PlannedCell:
    return PlannedCell(key, key, content, "pending", "", needs, passes, "kind", "train")


def schedule_of(*cells: PlannedCell, done: tuple[str, ...] = ()) -> Schedule:
    by_key = {one.key: one for one in cells}
    return Schedule(by_key, set(done), Estimator(by_key.values()).chain)


def key_of(found: PlannedCell | None) -> str | None:
    return None if found is None else found.key


def test_the_cell_with_the_longest_chain_behind_it_starts_first() -> None:
    schedule = schedule_of(cell("short", 5), cell("long", 1), cell("after", 9, ("long",)))
    assert [key_of(schedule.take(0.0)) for _ in range(3)] == ["long", "short", None]
    schedule.finished("long")
    assert key_of(schedule.take(0.0)) == "after"


def test_a_cell_whose_need_failed_never_starts() -> None:
    schedule = schedule_of(cell("b", needs=("a",)), cell("c", needs=("b",)))
    assert schedule.take(0.0) is None
    assert list(schedule.waiting) == ["b", "c"]


def test_a_cell_that_another_run_is_at_rests_for_a_while() -> None:
    schedule = schedule_of(cell("a"))
    taken = schedule.take(0.0)
    assert taken is not None
    schedule.rest(taken, until=1.0)
    assert schedule.take(0.5) is None and schedule.resting
    assert key_of(schedule.take(1.0)) == "a" and not schedule.resting


@given(st.lists(st.tuples(st.integers(0, 9), st.sets(st.integers(0, 11), max_size=3)), max_size=12))
def test_every_cell_starts_once_and_after_what_it_needs(drawn: list[tuple[int, set[int]]]) -> None:
    cells = [
        cell(str(index), passes, tuple(str(need) for need in sorted(needs) if need < index))
        for index, (passes, needs) in enumerate(drawn)
    ]
    schedule = schedule_of(*cells)
    order: list[str] = []
    while (taken := schedule.take(0.0)) is not None:
        assert set(taken.needs) <= set(order)
        order.append(taken.key)
        schedule.finished(taken.key)
    assert sorted(order) == sorted(one.key for one in cells)


class Instant:
    """An executor whose cells end at once."""

    slots = 8
    device = "cpu"

    def __init__(self, setup: ExecutorSetup) -> None:
        self._queue: deque[CellTask] = deque()

    def submit(self, task: CellTask) -> None:
        self._queue.append(task)

    def wait(self) -> CellSummary:
        return CellSummary(self._queue.popleft().key, "ok", 1.0)

    def stop(self) -> None:
        assert not self._queue


def large_plan(folder: Path, n: int) -> Plan:
    """A hundredth of the cells are trainings, some of which start from others; the rest measures them."""
    template = make_plan(expand(load_suite("smoke")), lambda _: ("missing", ""))
    content = template.cells[0].cell
    cells = []
    for index in range(n):
        needs = (f"c{index - index % 100}",) if index % 100 else ((f"c{index - 100}",) if index % 1000 else ())
        cells.append(cell(f"c{index}", index % 7, needs, content))
    return Plan("large", 1, tuple(cells), Resources(), template.stored, {})


def calls_of(work: Callable[[], object]) -> int:
    """Calls of Python and C functions while `work` runs."""
    count = 0

    def watch(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def test_time_and_memory_of_a_run_grow_with_its_cells_and_not_with_their_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EXECUTORS, "load", lambda _: Instant)
    store = Store.open(tmp_path / "store")
    options = RunOptions(executor="serial")
    calls = {}
    for n in (500, 5_000):
        plan = large_plan(tmp_path, n)
        calls[n] = calls_of(lambda plan=plan: run_plan(plan, store, options))
    assert calls[5_000] < 11 * calls[500]
    plan = large_plan(tmp_path, 100_000)
    tracemalloc.start()
    assert run_plan(plan, store, options).done == 100_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000 * 100_000


def test_an_executor_of_another_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "plugin"
    entry = folder / "lab_executor-1.dist-info"
    entry.mkdir(parents=True)
    (entry / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-executor\nVersion: 1\n")
    (entry / "entry_points.txt").write_text("[robusteval.executors]\nlab = lab_executor:Lab\n")
    (folder / "lab_executor.py").write_text(
        "from robusteval.execution.executors import Serial\n\n"
        "class Lab(Serial):\n"
        "    def __init__(self, setup):\n"
        "        super().__init__(setup)\n"
        "        setup.on_progress('', 0.0, 'the lab begins')\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    assert "lab" in EXECUTORS.names()
    said: list[str] = []
    setup = ExecutorSetup("file:///nowhere", lambda _key, _fraction, what: said.append(what), 1, Resources())
    assert EXECUTORS.load("lab")(setup).slots == 1
    assert said == ["the lab begins"]
