"""A suite in a store that several machines share: whatever fails on the way, its records are those of a quiet run."""

from __future__ import annotations

import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from robusteval.execution.events import RunSummary
from robusteval.execution.inputs import put_inputs
from robusteval.execution.runner import RunOptions, run_plan
from robusteval.planning.expand import expand
from robusteval.planning.loader import load_suite
from robusteval.planning.only import Filter
from robusteval.planning.plan import make_plan
from robusteval.store.lease import Rhythm
from robusteval.store.leases import SeenLease
from robusteval.store.progress import read_progress, survey
from robusteval.store.store import Store

SUITE = "smoke"
SERIAL = RunOptions(executor="serial", device="cpu")


def run(store: Store, options: RunOptions = SERIAL, only: str | None = None) -> RunSummary:
    plan = make_plan(expand(load_suite(SUITE)), survey(store), Filter.parse(only) if only else None)
    put_inputs(plan, store)
    return run_plan(plan, store, options)


def digests(store: Store) -> dict[str, str]:
    return {record.cell_key: record.result_digest for record in store.records()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a quiet run finds."""
    store = Store.open(tmp_path_factory.mktemp("quiet"))
    assert run(store).done == 15
    return digests(store)


def assert_complete(store: Store, expected: dict[str, str]) -> None:
    """Nothing lost, nothing twice, nothing left behind."""
    assert digests(store) == expected
    for folder in ("conflicts", "failures", "leases", "damaged"):
        assert list(store.backend.paths(folder)) == []
    progress = read_progress(store)
    assert progress.finished
    assert [(suite.cells, suite.done) for suite in progress.suites] == [(15, 15)]


@pytest.mark.slow
def test_two_workers_fill_a_bucket_with_the_records_of_a_quiet_run(bucket: str, expected: dict[str, str]) -> None:
    store = Store.open(f"{bucket}/lab/results")
    summary = run(store, RunOptions(executor="processes", jobs=2, device="cpu"))
    assert (summary.done, summary.failed, summary.notes) == (15, {}, [])
    assert_complete(store, expected)
    again = run(Store.open(store.uri))
    assert (again.done, again.cached) == (0, 15)


def wait_for_lease(store: Store, process: subprocess.Popen[str]) -> SeenLease:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for seen in store.leases.seen().values():
            if seen.lease is not None and seen.lease.owner.pid == process.pid:
                return seen
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("the worker took no lease")


@pytest.mark.slow
def test_a_killed_workers_cell_is_taken_over_by_another_machine(
    bucket: str, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(f"{bucket}/results")
    command = [sys.executable, "-m", "robusteval", "run", SUITE, "--store", store.uri, "--executor", "serial", "-q"]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = wait_for_lease(store, worker)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    assert store.leases.seen()[seen.key].state == "stale"
    assert digests(store).items() <= expected.items()
    # Another home folder has other locks, which is all that one machine can know of another.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("robusteval.store.leases.RHYTHM", Rhythm(renew_s=0.2, stale_s=1.5))
    elsewhere = Store.open(store.uri)
    assert elsewhere.local != store.local
    assert survey(elsewhere)(seen.key)[0] == "running"
    before = len(digests(store))
    summary = run(elsewhere)
    assert (summary.done, summary.cached, summary.failed) == (15 - before, before, {})
    assert_complete(elsewhere, expected)


class Network:
    """Whether the next call fails, before or after it was carried out, and how slow it is."""

    def __init__(self) -> None:
        self._random = random.Random(20)
        self.calls = self.failures = 0

    def pass_through(self, call: Any, *arguments: Any, **options: Any) -> Any:
        draw = self._random.random()
        self.calls += 1
        self.failures += draw < 0.2
        if draw < 0.1:
            raise OSError(121, "the service is having a moment")
        time.sleep(0.002)
        found = call(*arguments, **options)
        if draw < 0.2:
            raise TimeoutError("the answer was lost")
        return found


@pytest.fixture
def network() -> Iterator[Network]:
    """The network before every `memory://` store; a fifth of its calls fail."""
    fsspec = pytest.importorskip("fsspec", reason="fsspec is what a store in a bucket stands on")
    memory = fsspec.get_filesystem_class("memory")
    trouble = Network()

    class Failing(memory):  # type: ignore[misc,valid-type]
        cachable = False

        def cat_file(self, path: str, **options: Any) -> Any:
            return trouble.pass_through(super().cat_file, path, **options)

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> Any:
            return trouble.pass_through(super().pipe_file, path, value, mode=mode, **options)

        def info(self, path: str, **options: Any) -> Any:
            return trouble.pass_through(super().info, path, **options)

        def find(self, path: str, **options: Any) -> Any:
            return trouble.pass_through(super().find, path, **options)

        def rm_file(self, path: str) -> Any:
            return trouble.pass_through(super().rm_file, path)

    fsspec.register_implementation("memory", Failing, clobber=True)
    yield trouble
    fsspec.register_implementation("memory", memory, clobber=True)


@pytest.mark.slow
def test_a_store_that_is_slow_and_fails_a_fifth_of_its_calls_loses_nothing_and_doubles_nothing(
    network: Network, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("robusteval.store.leases.RHYTHM", Rhythm(renew_s=0.1))
    store = Store.open(f"memory://lab{secrets.token_hex(4)}/results")
    summary = run(store)
    assert (summary.done, summary.failed, summary.notes) == (15, {}, [])
    assert_complete(store, expected)
    assert network.failures > 0.1 * network.calls > 10


@pytest.mark.slow
def test_a_store_that_goes_away_during_a_run_fails_cells_by_name_and_stores_no_failure(
    expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("robusteval.store.object_backend._is_hopeless", lambda error: True)
    fsspec = pytest.importorskip("fsspec", reason="fsspec is what a store in a bucket stands on")
    memory = fsspec.get_filesystem_class("memory")
    store = Store.open(f"memory://lab{secrets.token_hex(4)}/results")
    with monkeypatch.context() as outage:
        create = memory.pipe_file

        def refuse(self: Any, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
            if "/artefacts/" in path:
                raise OSError(5, "gone")
            create(self, path, value, mode=mode, **options)

        outage.setattr(memory, "pipe_file", refuse)
        summary = run(store, only="label=erm")
    assert summary.done == 0
    assert summary.failed
    assert all("UnreachableError" in reason and store.uri in reason for reason in summary.failed.values())
    assert list(store.backend.paths("failures")) == []
    assert run(store, only="label=erm").done == 5
    assert digests(store).items() <= expected.items()
