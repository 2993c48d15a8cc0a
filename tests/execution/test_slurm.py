"""SLURM jobs through submitit: what is asked of sbatch, what a vanished job costs, and what is refused."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from robusteval.execution.events import CellTask
from robusteval.execution.executors import ExecutorSetup
from robusteval.execution.runner import RunOptions, run_plan
from robusteval.execution.slurm import SlurmExecutor
from robusteval.planning.expand import expand
from robusteval.planning.loader import load_suite
from robusteval.planning.only import Filter
from robusteval.planning.plan import Plan, make_plan
from robusteval.schema.errors import UsageError
from robusteval.schema.types import Resources
from robusteval.store.store import Store

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'robusteval[slurm]'")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def setup_of(store_uri: str, resources: Resources, device: str = "auto", **options: str) -> ExecutorSetup:
    return ExecutorSetup(store_uri, lambda *_: None, 9, resources, device=device, jobs=5, options=options)


def two_cells(store: Store) -> Plan:
    return make_plan(expand(load_suite("smoke")), store.state, Filter.parse("label=erm,role=a_id"))


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for SLURM's commands; the folder takes the script that was submitted and the words of scancel."""
    folder = tmp_path / "bin"
    folder.mkdir()
    commands = {
        "sbatch": f'cp "$1" {folder}/script; echo "Submitted batch job 17"',
        "scancel": f'echo "$@" >> {folder}/cancelled',
        "sacct": "echo 'JobID|State|NodeList'",
        "srun": "true",
    }
    for name, body in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_cells_go_to_sbatch_as_one_array_with_their_resources(
    store: Store, sbatch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = Resources(cpus=4, gpus=0.5, memory_gb=16.0)
    executor = SlurmExecutor(setup_of(store.uri, resources, partition="gpu", minutes="90", account="lab"))
    assert (executor.device, executor.slots) == ("cuda", 5)
    for index in range(3):
        executor.submit(CellTask(str(index) * 64, "{}"))

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        executor.wait()
    executor.stop()
    asked = (sbatch / "script").read_text()
    for line in (
        "--array=0-2%3", "--cpus-per-task=4", "--gpus-per-node=1", "--mem=16", "--time=90", "--partition=gpu",
        "--account=lab", "--job-name=robusteval",
    ):  # fmt: skip
        assert line in asked
    assert (sbatch / "cancelled").read_text().split() == ["17_0", "17_1", "17_2"]
    assert stat.S_IMODE((store.local / "slurm").stat().st_mode) == 0o700


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # submitit leaves its logs open
def test_jobs_can_run_in_this_process(store: Store) -> None:
    options = RunOptions(executor="slurm", executor_options={"cluster": "debug"})
    summary = run_plan(two_cells(store), store, options)
    assert (summary.done, summary.failed) == (2, {})
    assert not list((store.local / "slurm").glob("*.pkl"))


@pytest.mark.slow
def test_a_job_that_is_killed_is_sent_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    flush = SlurmExecutor._flush

    def flush_and_kill(executor: SlurmExecutor) -> None:
        flush(executor)
        for seen in store.leases.seen().values():
            if not killed and seen.lease is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(seen.lease.owner.pid, signal.SIGKILL)
                    killed.append(seen.lease.owner.pid)

    monkeypatch.setattr(SlurmExecutor, "_flush", flush_and_kill)
    options = RunOptions(executor="slurm", executor_options={"cluster": "local", "poll_s": "0.01"})
    summary = run_plan(two_cells(store), store, options)
    assert len(killed) == 1
    assert (summary.done, summary.failed) == (2, {})


def test_without_submitit_the_extra_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"pip install 'robusteval\[slurm\]'"):
        SlurmExecutor(setup_of(store.uri, Resources()))


def test_without_slurm_the_way_to_run_here_is_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"no sbatch on this machine.*cluster=local"):
        SlurmExecutor(setup_of(store.uri, Resources()))


def refusal(*arguments: Any, **options: str) -> str:
    with pytest.raises(UsageError) as refused:
        SlurmExecutor(setup_of(*arguments, **options))
    return str(refused.value)


def test_what_cannot_be_is_refused_in_one_line(store: Store, sbatch: Path, tmp_path: Path) -> None:
    assert "unknown parameter 'partitoin'; did you mean 'partition'" in refusal(store.uri, Resources(), partitoin="gpu")
    assert "parameter 'minutes'" in refusal(store.uri, Resources(), minutes="soon")
    assert "a store in a bucket has no room" in refusal("s3://lab/store", Resources())
    assert "SLURM gives each job its device" in refusal(store.uri, Resources(), "cuda:1")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert f"other users can write to {shared}" in refusal(store.uri, Resources(), folder=str(shared))
