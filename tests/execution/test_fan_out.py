"""Cells divided into shares give the records of whole cells, whoever runs them and whatever happens on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from robusteval.execution.cell import run_cell
from robusteval.execution.events import CellStatus, CellSummary, CellTask
from robusteval.execution.executors import ExecutorSetup
from robusteval.execution.fan_out import FanOut, merge_task, shard_tasks, why_whole
from robusteval.execution.runner import RunOptions, run_plan
from robusteval.planning.expand import expand
from robusteval.planning.loader import load_suite
from robusteval.planning.plan import Plan, make_plan
from robusteval.schema.cells import EvalCell
from robusteval.schema.errors import UsageError
from robusteval.schema.shards import Shard
from robusteval.schema.types import Resources
from robusteval.store.store import Store

SUITE = """
name: divided
version: 1
summary: A small model under short attacks.
train: {data: digits, domains: [upright], architecture: {name: small-cnn, params: {width: 4}}}
methods: [{method: erm, params: {epochs: 1, lr: 0.05}}]
evaluate:
  id: {examples: 30, robust_examples: 24}
  ood: {domains: [inverted], examples: 10, robust_examples: 9}
  threats:
    - epsilon: 8/255
      keep: uint8
      attacks: [{name: pgd, params: {steps: 3}}, {name: apgd-ce, params: {steps: 4, restarts: 1}}]
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("suite") / "divided.yaml"
    file.write_text(SUITE)
    return file


@pytest.fixture(scope="module")
def plan_for(suite: Path) -> Callable[[Store], Plan]:
    expansion = expand(load_suite(str(suite)))
    return lambda store: make_plan(expansion, store.state)


@pytest.fixture(scope="module")
def undivided(tmp_path_factory: pytest.TempPathFactory, plan_for: Callable[[Store], Plan]) -> Store:
    store = Store.open(tmp_path_factory.mktemp("undivided"))
    assert not run_plan(plan_for(store), store, RunOptions(executor="serial")).failed
    return store


def findings(store: Store) -> dict[str, tuple[str, ...]]:
    """What every record says, without where and when."""
    return {
        record.cell_key: (
            record.cell.model_dump_json(),
            record.evaluation.model_dump_json() if record.evaluation else "",
            record.training.model_dump_json() if record.training else "",
            record.result_digest,
        )
        for record in store.records()
    }


def attacked(plan: Plan) -> list[CellTask]:
    cells = [cell.cell for cell in plan.cells if isinstance(cell.cell, EvalCell) and cell.cell.threat is not None]
    return [CellTask(key=cell.key, cell=cell.model_dump_json()) for cell in cells]


def trained(store: Store, undivided: Store, plan: Plan) -> None:
    """Give a store the models of another one."""
    for cell in plan.cells:
        if cell.cell.kind == "train":
            record = undivided.get(cell.key)
            assert record.training is not None
            for digest in {record.training.weights, *record.training.checkpoints.values()}:
                store.put_artefact(undivided.get_artefact(digest))
            store.put(record)


def run(store: Store, task: CellTask) -> CellSummary:
    return run_cell(task, store.uri, lambda fraction, what: None)


def test_a_divided_run_gives_the_records_of_an_undivided_one(
    tmp_path: Path, plan_for: Callable[[Store], Plan], undivided: Store
) -> None:
    store = Store.open(tmp_path)
    reports: list[tuple[str, float]] = []

    class Listener:
        def started(self, key: str, title: str) -> None: ...
        def progressed(self, key: str, fraction: float, what: str) -> None:
            reports.append((key, fraction))

        def finished(self, summary: CellSummary, title: str) -> None: ...
        def tick(self, done: int, total: int, eta_s: float | None) -> None: ...

    plan = plan_for(store)
    summary = run_plan(plan, store, RunOptions(executor="serial", shards=3), Listener())
    assert not summary.failed and summary.done == len(plan.cells)
    assert findings(store) == findings(undivided)
    assert {key for key, _ in reports} <= {cell.key for cell in plan.cells}
    assert all(0.0 <= fraction <= 1.0 for _, fraction in reports)
    for place in ("shards", "scratch", "leases"):
        assert not [file for file in (store.local / place).rglob("*") if file.is_file()], place


def test_shares_done_by_hand_and_put_together_are_the_record(
    tmp_path: Path, plan_for: Callable[[Store], Plan], undivided: Store
) -> None:
    store = Store.open(tmp_path)
    plan = plan_for(store)
    trained(store, undivided, plan)
    task = attacked(plan)[0]
    shares = shard_tasks(task, 5)
    assert [str(share.shard) for share in shares] == [f"{index}of5" for index in range(1, 6)]
    for share in reversed(shares):
        assert run(store, share).status == "ok"
    assert store.state(task.key)[0] == "missing"
    assert run(store, merge_task(task, 5)).status == "ok"
    assert findings(store)[task.key] == findings(undivided)[task.key]


def test_a_missing_and_a_damaged_share_are_named_and_measured_again(
    tmp_path: Path, plan_for: Callable[[Store], Plan], undivided: Store
) -> None:
    store = Store.open(tmp_path)
    plan = plan_for(store)
    trained(store, undivided, plan)
    task = attacked(plan)[0]
    shares = shard_tasks(task, 3)
    for share in shares[:2]:
        run(store, share)
    summary = run(store, merge_task(task, 3))
    assert summary.status == "failed" and "share 3of3" in summary.headline and "missing" in summary.headline
    run(store, shares[2])
    (file,) = (store.local / "shards").rglob("2of3.share")
    blob = file.read_bytes()
    file.write_bytes(blob[:-9] + b"damaged!!")
    summary = run(store, merge_task(task, 3))
    assert summary.status == "failed" and "share 2of3 is damaged" in summary.headline
    for share in shares:
        run(store, share)
    assert file.read_bytes().partition(b"\n")[2] == blob.partition(b"\n")[2]
    assert run(store, merge_task(task, 3)).status == "ok"
    assert findings(store)[task.key] == findings(undivided)[task.key]
    assert store.get_failure(task.key) is None


def test_a_share_that_fails_fails_its_cell_with_its_own_traceback(
    tmp_path: Path, plan_for: Callable[[Store], Plan]
) -> None:
    store = Store.open(tmp_path)
    task = attacked(plan_for(store))[0]  # nothing is trained
    summary = run(store, shard_tasks(task, 2)[1])
    assert summary.status == "failed"
    failure = store.get_failure(task.key)
    assert failure is not None and failure.failure is not None
    assert "measure_into_box" in failure.failure.traceback


def test_what_is_not_divided_is_refused_with_the_reason(plan_for: Callable[[Store], Plan], tmp_path: Path) -> None:
    cells = [cell.cell for cell in plan_for(Store.open(tmp_path)).cells]
    reasons = [why_whole(cell) for cell in cells]
    assert sum(reason is None for reason in reasons) == 2
    clean = next(cell for cell in cells if cell.kind == "eval" and cell.threat is None)
    with pytest.raises(UsageError, match=r"is not divided: .*only adversarial evaluations"):
        shard_tasks(CellTask(key=clean.key, cell=clean.model_dump_json()), 2)


def test_keys_of_shares_differ_from_each_other_and_from_the_cell(plan_for: Callable[[Store], Plan], tmp_path) -> None:
    task = attacked(plan_for(Store.open(tmp_path)))[0]
    keys = [share.key for count in (2, 3) for share in shard_tasks(task, count)]
    assert len({task.key, *keys}) == 6
    assert all(len(key) == 64 for key in keys)
    assert shard_tasks(task, 1000)[-1].shard == Shard(index=23, count=24)
    assert replace(shard_tasks(task, 2)[0], key=task.key, shard=None) == task


class Scripted:
    """An executor whose tasks end, last one first, with the status that a script has for their share."""

    device = "cpu"

    def __init__(self, setup: ExecutorSetup, slots: int, script: dict[str, CellStatus]) -> None:
        self.setup, self.slots, self.script = setup, slots, script
        self.queue: list[CellTask] = []
        self.seen: list[str] = []

    def submit(self, task: CellTask) -> None:
        self.queue.append(task)
        assert len(self.queue) <= self.slots

    def wait(self) -> CellSummary:
        task = self.queue.pop()
        name = "whole" if task.shard is None else str(task.shard)
        self.seen.append(f"{name}+{task.merges}" if task.merges else name)
        self.setup.on_progress(task.key, 0.5, "half")
        return CellSummary(task.key, self.script.get(name, "ok"), 1.0, name)

    def stop(self) -> None:
        self.queue.clear()


def play(task: CellTask, script: dict[str, CellStatus], slots: int = 2) -> tuple[CellSummary, Scripted, list[float]]:
    reports: list[float] = []
    setup = ExecutorSetup("store", lambda key, fraction, what: reports.append(fraction), cells=3, resources=Resources())
    made: list[Scripted] = []

    def make(inner: ExecutorSetup) -> Scripted:
        made.append(Scripted(inner, slots, script))
        return made[0]

    fan = FanOut(make, setup, shards=3)
    fan.submit(task)
    return fan.wait(), made[0], reports


def test_the_runner_sees_one_cell_that_ends_when_its_shares_are_put_together(
    plan_for: Callable[[Store], Plan], tmp_path: Path
) -> None:
    task = attacked(plan_for(Store.open(tmp_path)))[0]
    summary, inner, reports = play(task, {})
    assert (summary.key, summary.status) == (task.key, "ok")
    assert sorted(inner.seen[:3]) == ["1of3", "2of3", "3of3"] and inner.seen[3:] == ["whole+3"]
    assert reports[:3] == pytest.approx([0.5 / 3, 1.5 / 3, 2.5 / 3])


def test_a_failed_share_ends_the_cell_without_those_that_have_not_begun(
    plan_for: Callable[[Store], Plan], tmp_path: Path
) -> None:
    task = attacked(plan_for(Store.open(tmp_path)))[0]
    summary, inner, _ = play(task, {"1of3": "failed"}, slots=1)
    assert (summary.key, summary.status, summary.headline) == (task.key, "failed", "1of3")
    assert inner.seen == ["1of3"]


def test_a_share_that_another_run_is_at_leaves_the_cell_for_later(
    plan_for: Callable[[Store], Plan], tmp_path: Path
) -> None:
    task = attacked(plan_for(Store.open(tmp_path)))[0]
    summary, inner, _ = play(task, {"2of3": "busy"})
    assert (summary.key, summary.status) == (task.key, "busy")
    assert sorted(inner.seen) == ["1of3", "2of3", "3of3"]
