"""Whatever dies under a run on Ray, the finished board is that of an undisturbed run: nothing lost, nothing twice."""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from robusteval.execution.events import CellSummary, SilentListener
from robusteval.execution.runner import RunOptions, run_plan
from robusteval.planning.expand import expand
from robusteval.planning.loader import load_suite
from robusteval.planning.plan import Plan, make_plan
from robusteval.store.store import Store

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("ROBUSTEVAL_TEST_FAULTS") != "1",
        reason="minutes of killed workers and nodes on a cluster of its own; set ROBUSTEVAL_TEST_FAULTS=1",
    ),
]

ON_RAY = RunOptions(executor="ray", executor_options={"resubmit": "20"})


def plan_of(store: Store) -> Plan:
    return make_plan(expand(load_suite("smoke")), store.state)


def digests(store: Store) -> dict[str, str]:
    return {record.cell_key: record.result_digest for record in store.records()}


def conflicts(store: Store) -> list[str]:
    return list(store.backend.paths("conflicts"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    store = Store.open(tmp_path_factory.mktemp("undisturbed"))
    assert not run_plan(plan_of(store), store, RunOptions(executor="serial")).failed
    return digests(store)


class Killer(threading.Thread):
    """Kills workers that are at a cell, at random moments, until it is told to end.

    The lease of a cell says which process executes it.
    """

    def __init__(self, store: Store, moments: random.Random) -> None:
        super().__init__(daemon=True)
        self._store, self._moments = store, moments
        self._end = threading.Event()
        self.killed = 0

    def run(self) -> None:
        while not self._end.wait(self._moments.uniform(0.05, 0.5)):
            working = [seen.lease.owner.pid for seen in self._store.leases.seen().values() if seen.lease is not None]
            if working and self.killed < 10:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._moments.choice(sorted(working)), signal.SIGKILL)
                    self.killed += 1

    def stop(self) -> None:
        self._end.set()
        self.join()


def test_workers_killed_at_ten_random_moments_change_nothing(
    ray_cluster: Any, expected: dict[str, str], tmp_path: Path
) -> None:
    moments = random.Random(10)
    killed = 0
    while killed < 10:
        store = Store.open(tmp_path / f"after-{killed}")
        killer = Killer(store, moments)
        killer.killed = killed
        killer.start()
        try:
            summary = run_plan(plan_of(store), store, ON_RAY)
        finally:
            killer.stop()
        assert (summary.failed, summary.blocked) == ({}, [])
        assert digests(store) == expected
        assert not conflicts(store)
        assert killer.killed > killed
        killed = killer.killed


def test_a_cell_that_kills_every_worker_is_given_up_by_name_and_the_others_finish(
    ray_cluster: Any, expected: dict[str, str], store: Store
) -> None:
    plan = plan_of(store)
    victim = plan.cells[0]

    class Poison(threading.Thread):
        def run(self) -> None:
            while not over.wait(0.01):
                seen = store.leases.seen().get(victim.key)
                if seen is not None and seen.lease is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(seen.lease.owner.pid, signal.SIGKILL)

    over = threading.Event()
    poison = Poison(daemon=True)
    poison.start()
    summary = run_plan(plan, store, RunOptions(executor="ray", executor_options={"resubmit": "1"}))
    over.set()
    poison.join()
    assert list(summary.failed) == [victim.title]
    assert summary.failed[victim.title].startswith("WorkerDied: ")
    assert "(2 times)" in summary.failed[victim.title]
    assert summary.done == sum(victim.key not in (cell.key, *cell.needs) for cell in plan.cells) - _behind(plan, victim)
    assert digests(store).items() < expected.items()


def _behind(plan: Plan, victim: Any) -> int:
    """Cells that need a cell that needs the victim."""
    followers = {cell.key for cell in plan.cells if victim.key in cell.needs}
    return sum(bool(followers & set(cell.needs)) for cell in plan.cells)


def test_a_node_that_is_removed_takes_no_result_with_it(
    ray_cluster: Any, expected: dict[str, str], store: Store, add_node: Callable[..., Any]
) -> None:
    extra = add_node()

    class Remover(SilentListener):
        removed = False

        def finished(self, summary: CellSummary, title: str) -> None:
            if not self.removed:
                self.removed = True
                ray_cluster.remove_node(extra, allow_graceful=False)

    summary = run_plan(plan_of(store), store, ON_RAY, Remover())
    assert (summary.failed, summary.blocked) == ({}, [])
    assert digests(store) == expected
    assert not conflicts(store)


def test_a_driver_that_is_killed_and_started_again_goes_on_where_it_was(
    ray_cluster: Any, expected: dict[str, str], store: Store
) -> None:
    driver = started("--executor", "ray", "--address", ray_cluster.address, "--store", str(store.local))
    wait_for(lambda: len(digests(store)) >= 2, driver)
    driver.kill()
    driver.communicate()
    before = digests(store)
    assert before.items() <= expected.items()
    summary = run_plan(plan_of(store), store, ON_RAY)
    assert (summary.failed, summary.blocked) == ({}, [])
    assert digests(store) == expected
    assert not conflicts(store)


def test_ctrl_c_at_the_terminal_ends_a_run_with_130_and_an_intact_store(
    ray_cluster: Any, expected: dict[str, str], store: Store
) -> None:
    driver = started("--executor", "ray", "--address", ray_cluster.address, "--store", str(store.local))
    wait_for(lambda: len(digests(store)) >= 1, driver)
    os.killpg(driver.pid, signal.SIGINT)
    text = "".join(driver.communicate(timeout=120))
    assert driver.returncode == 130, text
    assert "Traceback" not in text
    assert digests(store).items() <= expected.items()
    assert not list(store.local.rglob("*.tmp"))


def test_a_store_that_is_slow_and_fails_a_fifth_of_its_calls_loses_nothing(
    ray_cluster: Any, expected: dict[str, str], tmp_path: Path, faulty: str
) -> None:
    store = Store.open(faulty)
    summary = run_plan(plan_of(store), store, ON_RAY)
    assert (summary.failed, summary.blocked) == ({}, [])
    assert digests(store) == expected
    assert not conflicts(store)


@pytest.fixture
def faulty(ray_cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """URI of an empty store that is slow and fails, here and on the nodes of the cluster."""
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'robusteval[cloud]'")
    memory = fsspec.get_filesystem_class("memory")
    folder = next(Path(os.environ["RAY_TMPDIR"]).glob("faulty"))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    fsspec.register_implementation("memory", importlib.import_module("faulty_store").FaultyStore, clobber=True)
    yield "memory://bucket/board"
    fsspec.register_implementation("memory", memory, clobber=True)


def test_without_an_address_a_local_cluster_is_started_and_leaves_nothing_behind(
    expected: dict[str, str], store: Store, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'robusteval[ray]'")
    short = Path(tempfile.mkdtemp(prefix="rv-", dir="/tmp"))
    home = tmp_path / "home"
    home.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    try:
        driver = started(
            "--executor", "ray", "--jobs", "2", "--store", str(store.local),
            environment={**clean, "TMPDIR": str(short), "HOME": str(home)},
        )  # fmt: skip
        text = "".join(driver.communicate(timeout=300))
        assert driver.returncode == 0, text
        assert digests(store) == expected
        assert not list(short.iterdir())
        assert not (home / ".ray").exists()
    finally:
        shutil.rmtree(short, ignore_errors=True)


def started(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "robusteval", "run", "smoke", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment,
    )  # fmt: skip


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, "".join(process.communicate())
        assert time.monotonic() < deadline
        time.sleep(0.05)
