"""What executors and plans cost beside the work: 500 trivial cells through Ray, and a plan of 10,000 cells.

Run with `pytest tests/benchmarks --benchmark-only -k executor`. `extra_info` holds `case`; for `ray` the `cells`, the
`start_s` of a local cluster with its checks, and the `seconds` that the cells took after it; for `plan` the `cells`,
the processor `seconds` from the file to the plan, and the memory `mb` that they took beside the packages.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import pytest

from robusteval.execution.executors import ExecutorSetup
from robusteval.execution.ray import RayExecutor
from robusteval.execution.runner import RunOptions, run_plan
from robusteval.planning.expand import expand
from robusteval.planning.loader import load_suite
from robusteval.planning.plan import PlannedCell, make_plan
from robusteval.schema.cells import TrainCell
from robusteval.schema.types import Resources
from robusteval.store.store import Store

CELLS = 500
ROWS = 400


def test_executor_ray_runs_trivial_cells(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    store = Store.open(tmp_path / "store")
    plan = make_plan(expand(load_suite("smoke")), store.state)
    run_plan(plan, store, RunOptions(executor="serial"))
    template = store.get(plan.cells[0].key)
    cells = []
    for seed in range(1, CELLS + 1):  # cells that have a result: a worker looks, and answers
        cell = template.cell.model_copy(update={"seed": seed})
        assert isinstance(cell, TrainCell)
        cell = TrainCell.model_validate(cell.model_dump())
        store.put(template.model_copy(update={"cell": cell, "cell_key": cell.key}))
        cells.append(PlannedCell(cell.key, cell.key, cell, "pending", "", (), 1, "kind", "train"))
    setup = ExecutorSetup(store.uri, lambda *_: None, CELLS, Resources(), jobs=2, data=(template.cell.data,))
    begin = time.monotonic()
    executor = RayExecutor(setup)
    started = time.monotonic() - begin
    monkeypatch.setattr("robusteval.execution.runner._Runner._make_executor", lambda _: executor)
    large = plan.__class__("large", 1, tuple(cells), Resources(), plan.stored, {})
    summary = benchmark.pedantic(run_plan, args=(large, store, RunOptions(executor="ray")), rounds=1, iterations=1)
    assert (summary.cached, summary.failed) == (CELLS, {})
    seconds = round(float(benchmark.stats["max"]), 2)
    benchmark.extra_info.update(case="ray", cells=CELLS, start_s=round(started, 1), seconds=seconds)


def test_executor_plan_of_ten_thousand_cells(benchmark: Any, tmp_path: Path) -> None:
    rows = "\n".join(
        f"  - {{method: erm, label: r{row}, params: {{lr: {0.01 + row * 1e-5:.5f}}}}}" for row in range(ROWS)
    )
    file = tmp_path / "large.yaml"
    file.write_text(
        "name: large\nversion: 1\nsummary: Many rows.\nseeds: [0, 1, 2, 3, 4]\n"
        f"train: {{data: digits, domains: [upright], architecture: small-cnn}}\nmethods:\n{rows}\n"
        "evaluate:\n  id: {examples: 20}\n  threats: [{epsilon: 0.1, attacks: [pgd]}]\n"
    )
    make_plan(expand(load_suite("smoke")), lambda _: ("missing", ""))  # imports what every plan imports
    store = Store.open(tmp_path / "store")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    plan = benchmark.pedantic(lambda: make_plan(expand(load_suite(str(file))), store.survey()), rounds=1, iterations=1)
    seconds = round(time.process_time() - begin, 2)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    benchmark.extra_info.update(case="plan", cells=len(plan.cells), seconds=seconds, mb=round(grown))
