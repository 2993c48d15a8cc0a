"""Every executor obeys one contract: the same records, failures that stay where they are, nothing lost to Ctrl-C."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from robusteval.execution.events import CellSummary, SilentListener
from robusteval.execution.runner import RunOptions, run_plan
from robusteval.planning.expand import expand
from robusteval.planning.loader import load_suite
from robusteval.planning.plan import Plan, make_plan
from robusteval.store.store import Store

JOBS = {"cluster": "local", "cells_per_job": "4", "poll_s": "0.2"}
EXECUTORS = {
    "serial": RunOptions(executor="serial"),
    "processes": RunOptions(executor="processes", jobs=2),
    "ray": RunOptions(executor="ray"),
    "slurm": RunOptions(executor="slurm", jobs=2, executor_options=JOBS),
}
MARKS = {"ray": (pytest.mark.ray, pytest.mark.slow), "slurm": (pytest.mark.slow,), "processes": (pytest.mark.slow,)}

SUITE = """
name: tiny
version: 1
summary: Two rows on a few examples.
train: {data: digits, domains: [upright], architecture: {name: small-cnn, params: {width: 4}}}
methods:
  - {method: erm, params: {epochs: 1, lr: LR}}
  - {method: erm, label: other, params: {epochs: 1, lr: 0.04}}
evaluate:
  id: {examples: 20, robust_examples: 10}
  ood: {domains: [inverted], examples: 10, robust_examples: 5}
  threats: [{epsilon: 0.1, attacks: [{name: pgd, params: {steps: 2}}]}]
"""


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, ())) for name in EXECUTORS])
def options(request: pytest.FixtureRequest) -> RunOptions:
    if request.param == "ray":
        request.getfixturevalue("ray_cluster")
    if request.param == "slurm":
        pytest.importorskip("submitit", reason="submitit is not installed: pip install 'robusteval[slurm]'")
    return EXECUTORS[request.param]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def plan_of(folder: Path, store: Store, lr: str = "0.05") -> Plan:
    file = folder / f"tiny-{lr}.yaml"
    file.write_text(SUITE.replace("LR", lr))
    return make_plan(expand(load_suite(str(file))), store.state)


def records(store: Store) -> dict[str, str]:
    """What is stored of each cell, without where and when it was computed."""
    found = {}
    for file in (store.local / "records").rglob("*.json"):
        document: dict[str, Any] = json.loads(file.read_text())
        found[file.stem] = json.dumps({**document, "provenance": None, "timing": None, "record_digest": None})
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("expected")
    store = Store.open(folder / "store")
    summary = run_plan(plan_of(folder, store), store, RunOptions(executor="serial"))
    assert (summary.done, summary.failed) == (10, {})
    return records(store)


def test_the_records_are_those_of_a_serial_run_and_a_second_run_does_nothing(
    options: RunOptions, expected: dict[str, str], tmp_path: Path, store: Store
) -> None:
    summary = run_plan(plan_of(tmp_path, store), store, options)
    assert (summary.done, summary.cached, summary.failed, summary.blocked, summary.notes) == (10, 0, {}, [], [])
    assert records(store) == expected
    assert not list((store.local / "scratch").glob("*"))
    again = run_plan(plan_of(tmp_path, store), store, options)
    assert (again.done, again.cached) == (0, 10)


def test_a_cell_that_fails_keeps_only_what_needs_it_from_running(
    options: RunOptions, expected: dict[str, str], tmp_path: Path, store: Store
) -> None:
    plan = plan_of(tmp_path, store, lr="1e30")
    summary = run_plan(plan, store, options)
    assert list(summary.failed) == ["erm seed 0: train"]
    assert "diverged" in summary.failed["erm seed 0: train"]
    assert summary.done == 5
    assert {title.split()[0] for title in summary.blocked} == {"erm"}
    assert records(store).items() < expected.items()
    failure = store.get_failure(plan.cells[0].key)
    assert failure is not None and failure.failure is not None
    assert "Traceback" in failure.failure.traceback


def test_ctrl_c_leaves_no_part_of_a_file_and_the_next_run_goes_on(
    options: RunOptions, expected: dict[str, str], tmp_path: Path, store: Store
) -> None:
    class Interrupter(SilentListener):
        def finished(self, summary: CellSummary, title: str) -> None:
            signal.raise_signal(signal.SIGINT)

    summary = run_plan(plan_of(tmp_path, store), store, options, Interrupter())
    assert summary.cancelled
    assert 1 <= len(records(store)) < 10
    assert records(store).items() < expected.items()
    assert not list(store.local.rglob("*.tmp"))
    run_plan(plan_of(tmp_path, store), store, options)
    assert records(store) == expected
    assert not list((store.local / "conflicts").glob("*"))
