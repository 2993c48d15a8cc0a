"""What a worker does before a cell: damage and newer files are named, and nothing is computed over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from robusteval.execution.cell import run_cell
from robusteval.execution.events import CellSummary, CellTask
from robusteval.schema.cells import DataSlice, TrainCell
from robusteval.schema.digest import ids_digest
from robusteval.schema.types import Component
from robusteval.store.store import Store

CELL = TrainCell(
    data=DataSlice(
        dataset=Component(name="digits"), revision="none", domains=("upright",), split="train", n=1,
        ids_digest=ids_digest(["a"]),
    ),
    architecture=Component(name="small-cnn"), method=Component(name="erm"), protocol=1, seed=0,
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def execute(store: Store, *, again: bool = False) -> CellSummary:
    task = CellTask(key=CELL.key, cell=CELL.model_dump_json(), again=again)
    return run_cell(task, store.uri, lambda fraction, what: None)


@pytest.mark.parametrize("saved", [[1], {"wall_s": "abc"}, {"wall_s": -1.0}, {"wall_s": float("nan")}, {}, 3])
def test_a_clock_of_another_form_fails_the_cell_and_is_named(store: Store, saved: Any) -> None:
    store.scratch(CELL.key).put("clock.json", json.dumps(saved).encode())
    summary = execute(store)
    assert summary.status == "failed"
    assert str(store.local / "scratch" / CELL.key / "clock.json") in summary.headline


def test_a_saved_clock_is_added_to_the_time_of_the_cell(store: Store) -> None:
    store.scratch(CELL.key).put_json("clock.json", {"wall_s": 1000.0})
    assert execute(store).status == "failed"  # the revision is not the one of the digits
    failure = store.get_failure(CELL.key)
    assert failure is not None
    assert failure.failure is not None and failure.failure.type == "DataError"
    assert failure.timing.wall_s >= 1000.0


@pytest.mark.parametrize("again", [False, True])
def test_a_result_of_a_newer_version_is_never_computed_again(store: Store, again: bool) -> None:
    file = store.local / "records" / CELL.key[:2] / f"{CELL.key}.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"schema_version": 2}')
    summary = execute(store, again=again)
    assert summary.status == "failed"
    assert "written by a newer robusteval" in summary.headline
    assert store.get_failure(CELL.key) is None
    assert file.read_text() == '{"schema_version": 2}'
