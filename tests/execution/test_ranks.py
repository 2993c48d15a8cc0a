"""Several processes that share a cell find what one process finds, fail as one, and leave nobody behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch

from robusteval.evaluators.base import no_progress
from robusteval.execution.cell import run_cell
from robusteval.execution.device import rank_devices
from robusteval.execution.events import CellSummary, CellTask
from robusteval.execution.executors import ranks_of
from robusteval.execution.ranks import RankError, run_ranks, split_over_devices
from robusteval.planning.expand import expand
from robusteval.planning.loader import load_suite
from robusteval.schema.cells import EvalCell, TrainCell
from robusteval.schema.errors import UsageError
from robusteval.schema.records import ResultRecord, TrainingResult
from robusteval.schema.types import Progress, Resources
from robusteval.store.store import Store

SUITE = """
name: shared
version: 1
summary: Short trainings and one attack.
train: {data: digits, domains: [upright], architecture: {name: small-cnn, params: {width: 4}}}
methods:
  - {method: erm, params: {iterations: 12, evaluate_every: 2, batch_size: 15, lr: 0.02}}
  - {method: sam, params: {iterations: 2, evaluate_every: 2, batch_size: 15}}
evaluate:
  id: {examples: 20, robust_examples: 16}
  ood: {domains: [inverted], examples: 10, robust_examples: 6}
  threats:
    - epsilon: 8/255
      attacks: [{name: pgd, params: {steps: 3}}, {name: apgd-ce, params: {steps: 4, restarts: 1}}]
"""
TOLERANCE = 1e-4
"""Largest difference of a weight after 12 steps: two processes add the same floats in another order than one."""

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def task_of(cell: TrainCell | EvalCell, ranks: int) -> CellTask:
    return CellTask(key=cell.key, cell=cell.model_dump_json(), threads=ranks, ranks=ranks)


def run(store: Store, cell: TrainCell | EvalCell, ranks: int, report: Progress = no_progress) -> CellSummary:
    return run_cell(task_of(cell, ranks), store.uri, report)


def children(parent: int) -> list[int]:
    """Process ids of the running ranks that a process has started."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = file.read_text().rpartition(")")[2].split()
            ours = b"robusteval.execution.rank" in (file.parent / "cmdline").read_bytes()
            if fields[1] == str(parent) and fields[0] != "Z" and ours:
                found.append(int(file.parent.name))
    return found


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainCell | EvalCell]:
    """Cells by the name of their method, or `attack`."""
    file = tmp_path_factory.mktemp("suite") / "shared.yaml"
    file.write_text(SUITE)
    found: dict[str, TrainCell | EvalCell] = {}
    for item in expand(load_suite(str(file))).cells:
        if item.cell.kind == "train":
            found[item.cell.method.name] = item.cell
        elif item.cell.threat is not None:
            found.setdefault("attack", item.cell)
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, cells: dict[str, TrainCell | EvalCell]) -> Store:
    """A store in which one process has trained and attacked."""
    store = Store.open(tmp_path_factory.mktemp("alone"))
    assert [run(store, cells[name], 1).status for name in ("erm", "attack")] == ["ok", "ok"]
    return store


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, cells: dict[str, TrainCell | EvalCell]) -> Store:
    """A store in which two processes have trained."""
    store = Store.open(tmp_path_factory.mktemp("shared"))
    summary = run(store, cells["erm"], 2)
    assert summary.status == "ok", summary.headline
    return store


def training(store: Store, cell: TrainCell | EvalCell) -> TrainingResult:
    found = store.get(cell.key).training
    assert found is not None
    return found


def test_two_processes_train_the_model_of_one(
    cells: dict[str, TrainCell | EvalCell], alone: Store, shared: Store
) -> None:
    one, two = training(alone, cells["erm"]), training(shared, cells["erm"])
    expected = safetensors.torch.load(alone.get_artefact(one.weights))
    found = safetensors.torch.load(shared.get_artefact(two.weights))
    assert found.keys() == expected.keys()
    changes = {name: float((found[name].double() - expected[name].double()).abs().max()) for name in expected}
    assert max(changes.values()) <= TOLERANCE, changes
    assert (two.budget, two.selection_budget) == (one.budget, one.selection_budget)
    assert [entry["validation_accuracy"] for entry in two.history] == pytest.approx(
        [entry["validation_accuracy"] for entry in one.history], abs=0.01
    )


def findings(record: ResultRecord) -> tuple[str, str]:
    assert record.evaluation is not None
    return record.evaluation.model_dump_json(), record.result_digest


def test_two_processes_measure_what_one_measures_bit_for_bit(
    tmp_path: Path, cells: dict[str, TrainCell | EvalCell], alone: Store
) -> None:
    store, cell = Store.open(tmp_path), cells["attack"]
    store.put(alone.get(cells["erm"].key))
    store.put_artefact(alone.get_artefact(training(alone, cells["erm"]).weights))
    reports: list[float] = []
    summary = run(store, cell, 2, lambda fraction, what: reports.append(fraction))
    assert summary.status == "ok", summary.headline
    assert findings(store.get(cell.key)) == findings(alone.get(cell.key))
    assert all(0.0 <= fraction <= 1.0 for fraction in reports)
    assert not list((tmp_path / "shards").rglob("*.share"))


@needs_proc
def test_a_failing_process_fails_the_cell_with_its_own_traceback(
    tmp_path: Path, cells: dict[str, TrainCell | EvalCell]
) -> None:
    first, second = split_over_devices(task_of(cells["erm"], 2))
    with pytest.raises(RankError, match=r"process 2 of 2: RuntimeError: .*no-such-device") as caught:
        run_ranks([first, replace(second, device="no-such-device")], Store.open(tmp_path).uri, no_progress)
    cause = str(caught.value.__cause__)
    assert "Traceback" in cause and "rank_work.py" in cause
    assert not children(os.getpid())


def when_both_run(then: Callable[[list[int]], None]) -> threading.Thread:
    """Do something with the two processes as soon as they are there."""

    def wait() -> None:
        while len(found := sorted(children(os.getpid()))) < 2:
            time.sleep(0.02)
        then(found)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@needs_proc
def test_an_interrupted_run_leaves_no_process_and_no_record(
    tmp_path: Path, cells: dict[str, TrainCell | EvalCell]
) -> None:
    store, cell = Store.open(tmp_path), cells["erm"]
    thread = when_both_run(lambda _: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(store, cell, 2)
    thread.join()
    assert not children(os.getpid())
    assert store.state(cell.key)[0] == "missing"


@needs_proc
def test_a_killed_process_fails_the_cell_by_the_signal_and_takes_the_others_along(
    tmp_path: Path, cells: dict[str, TrainCell | EvalCell]
) -> None:
    store, cell = Store.open(tmp_path), cells["erm"]
    thread = when_both_run(lambda found: os.kill(found[1], signal.SIGKILL))
    summary = run(store, cell, 2)
    thread.join()
    assert summary.status == "failed"
    assert "process 2 of 2 ended with signal SIGKILL; it may have run out of memory" in summary.headline
    assert not children(os.getpid())
    failure = store.get_failure(cell.key)
    assert failure is not None and failure.failure is not None and failure.failure.type == "RankError"


@needs_proc
def test_processes_end_with_the_one_that_started_them(tmp_path: Path, cells: dict[str, TrainCell | EvalCell]) -> None:
    task = task_of(cells["erm"], 2)
    code = (
        "from robusteval.execution.ranks import run_ranks; from robusteval.execution.events import CellTask\n"
        f"task = CellTask(key={task.key!r}, cell={task.cell!r})\n"
        f"run_ranks([task, task], {str(tmp_path)!r}, lambda fraction, what: None)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 120
    while len(found := children(parent.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    assert len(found) == 2
    while [pid for pid in found if Path(f"/proc/{pid}").exists()] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in found if Path(f"/proc/{pid}").exists()]


def test_a_method_that_cannot_be_divided_runs_in_one_process_and_says_so(
    tmp_path: Path, cells: dict[str, TrainCell | EvalCell]
) -> None:
    summary = run(Store.open(tmp_path), cells["sam"], 2)
    assert summary.status == "ok"
    assert "ran in one process instead of 2: a step of method 'sam'" in summary.note


def test_ranks_are_one_for_each_whole_accelerator_unless_the_suite_says_otherwise() -> None:
    assert ranks_of(Resources(gpus=2.0), "cuda") == 2
    assert ranks_of(Resources(gpus=0.5), "cuda") == 1
    assert ranks_of(Resources(gpus=2.0), "cpu") == 1
    assert ranks_of(Resources(gpus=2.0, ranks=3), "cpu") == 3
    assert rank_devices("cpu", 3) == ["cpu"] * 3
    with pytest.raises(UsageError, match="64 processes need 64 accelerators"):
        rank_devices("cuda", 64)
