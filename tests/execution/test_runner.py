"""Every executor obeys one contract: the same records, failures that stay where they are, nothing run twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from robusteval.execution.events import CellSummary, SilentListener
from robusteval.execution.runner import RunOptions, run_plan
from robusteval.planning.expand import expand
from robusteval.planning.loader import load_suite
from robusteval.planning.plan import Plan, make_plan
from robusteval.schema.errors import UsageError
from robusteval.store.store import Store

EXECUTORS = [RunOptions(executor="serial"), RunOptions(executor="processes", jobs=2)]

SUITE = """
name: tiny
version: 1
summary: Two rows on a few examples.
train: {data: digits, domains: [upright], architecture: {name: small-cnn, params: {width: 4}}}
methods:
  - {method: erm, params: {epochs: 1, lr: LR}}
  - {method: erm, label: other, params: {epochs: 1, lr: 0.04}}
  - {method: erm, label: tuned, start: erm, params: {epochs: 1, lr: 0.01}}
evaluate:
  id: {examples: 20, robust_examples: 10}
  ood: {domains: [inverted], examples: 10, robust_examples: 5}
  threats: [{epsilon: 0.1, attacks: [{name: pgd, params: {steps: 2}}]}]
"""


class Recorder(SilentListener):
    """Remembers what a run told."""

    def __init__(self) -> None:
        self.summaries: dict[str, CellSummary] = {}
        self.fractions: list[float] = []

    def progressed(self, key: str, fraction: float, what: str) -> None:
        self.fractions.append(fraction)

    def finished(self, summary: CellSummary, title: str) -> None:
        self.summaries[title] = summary


def plan_of(tmp_path: Path, store: Store, lr: str = "0.05") -> Plan:
    file = tmp_path / f"tiny-{lr}.yaml"
    file.write_text(SUITE.replace("LR", lr))
    return make_plan(expand(load_suite(str(file))), store.state)


def digests(plan: Plan, store: Store) -> dict[str, str]:
    return {cell.title: store.get(cell.key).result_digest for cell in plan.cells}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.mark.slow
def test_all_executors_find_the_same_and_a_second_run_does_nothing(tmp_path: Path) -> None:
    found = []
    for index, options in enumerate(EXECUTORS):
        store = Store.open(tmp_path / f"store{index}")
        recorder = Recorder()
        plan = plan_of(tmp_path, store)
        summary = run_plan(plan, store, options, recorder)
        assert (summary.done, summary.cached, summary.failed, summary.blocked) == (15, 0, {}, [])
        assert all(0.0 <= fraction <= 1.0 for fraction in recorder.fractions)
        found.append(digests(plan, store))
        assert not list((store.local / "scratch").glob("*"))
        again = run_plan(plan_of(tmp_path, store), store, options)
        assert (again.done, again.cached) == (0, 15)
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.parametrize("options", EXECUTORS, ids=lambda options: options.executor)
def test_a_cell_that_fails_keeps_only_its_dependents_from_running(
    tmp_path: Path, store: Store, options: RunOptions
) -> None:
    plan = plan_of(tmp_path, store, lr="1e30")
    summary = run_plan(plan, store, options)
    assert list(summary.failed) == ["erm seed 0: train"]
    assert "diverged" in summary.failed["erm seed 0: train"]
    assert summary.done == 5
    assert len(summary.blocked) == 9
    assert {title.split()[0] for title in summary.blocked} == {"erm", "tuned"}
    states = {cell.title: cell.state for cell in plan_of(tmp_path, store, lr="1e30").cells}
    assert states["erm seed 0: train"] == "failed"
    assert states["tuned seed 0: train"] == "blocked"
    assert states["other seed 0: train"] == "done"
    failure = store.get_failure(plan.cells[0].key)
    assert failure is not None and failure.failure is not None
    assert "Traceback" in failure.failure.traceback


@pytest.mark.slow
def test_a_worker_that_is_killed_fails_its_cell_by_name_and_the_others_finish(tmp_path: Path, store: Store) -> None:
    import multiprocessing

    class Killer(Recorder):
        killed = False

        def progressed(self, key: str, fraction: float, what: str) -> None:
            if not self.killed:
                self.killed = True
                worker = multiprocessing.active_children()[0]
                assert worker.pid is not None
                os.kill(worker.pid, signal.SIGKILL)

    plan = plan_of(tmp_path, store)
    summary = run_plan(plan, store, RunOptions(executor="processes", jobs=1), Killer())
    assert len(summary.failed) == 1
    assert "SIGKILL" in next(iter(summary.failed.values()))
    rest = run_plan(plan_of(tmp_path, store), store, RunOptions(executor="serial"))
    assert not rest.failed and not rest.blocked
    assert rest.done + summary.done == 15


@pytest.mark.slow
def test_fail_fast_starts_nothing_after_a_failure(tmp_path: Path, store: Store) -> None:
    plan = plan_of(tmp_path, store, lr="1e30")
    summary = run_plan(plan, store, RunOptions(executor="serial", fail_fast=True))
    assert len(summary.failed) == 1
    assert summary.done + len(summary.blocked) == 14
    assert summary.blocked


@pytest.mark.slow
def test_a_damaged_record_is_reported_and_only_an_explicit_resume_computes_it_anew(
    tmp_path: Path, store: Store
) -> None:
    run_plan(plan_of(tmp_path, store), store, RunOptions(executor="serial"))
    expected = digests(plan_of(tmp_path, store), store)
    victim = next(cell for cell in plan_of(tmp_path, store).cells if cell.title == "other seed 0: clean")
    file = store.local / "records" / victim.key[:2] / f"{victim.key}.json"
    file.write_text(file.read_text()[:100])
    damaged = plan_of(tmp_path, store)
    assert damaged.totals["failed"] == 1
    summary = run_plan(damaged, store, RunOptions(executor="serial"))
    assert summary.done == 0
    assert str(file) in summary.failed["other seed 0: clean"]
    assert len(file.read_text()) == 100
    repaired = run_plan(plan_of(tmp_path, store), store, RunOptions(executor="serial", resume="failed"))
    assert (repaired.done, repaired.failed) == (1, {})
    assert digests(plan_of(tmp_path, store), store) == expected


@pytest.mark.slow
def test_running_everything_again_confirms_the_stored_results(tmp_path: Path, store: Store) -> None:
    run_plan(plan_of(tmp_path, store), store, RunOptions(executor="serial"))
    summary = run_plan(plan_of(tmp_path, store), store, RunOptions(executor="processes", jobs=2, resume="all"))
    assert (summary.done, summary.notes) == (15, [])
    assert not list((store.local / "conflicts").glob("*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RunOptions(executor="sulrm"), "unknown executor"),
        (RunOptions(device="gpu"), "unknown device"),
        (RunOptions(device="cuda:99"), "not on this machine"),
    ],
)
def test_an_executor_or_device_that_is_not_there_is_named(
    tmp_path: Path, store: Store, options: RunOptions, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run_plan(plan_of(tmp_path, store), store, options)
