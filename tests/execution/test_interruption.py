"""A run may be killed, interrupted, starved of disk or doubled: the final records equal an undisturbed run's."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SUITE = "smoke"


def start(store: Path, *arguments: str, limit_bytes: int | None = None) -> subprocess.Popen[str]:
    limit = f"ulimit -f {limit_bytes // 1024}; " if limit_bytes else ""
    command = [sys.executable, "-m", "robusteval", "run", SUITE, "--store", str(store), *arguments]
    return subprocess.Popen(
        ["bash", "-c", f'{limit}exec "$@"', "bash", *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out + err


def digests(store: Path) -> dict[str, str]:
    found = {}
    for file in (store / "records").rglob("*.json"):
        document = json.loads(file.read_text())
        found[document["cell_key"]] = document["result_digest"]
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    store = tmp_path_factory.mktemp("undisturbed")
    begin = time.monotonic()
    code, text = finish(start(store, "--executor", "serial"))
    assert code == 0, text
    return digests(store), time.monotonic() - begin


@pytest.mark.slow
def test_a_run_killed_at_five_random_moments_ends_with_the_records_of_an_uninterrupted_one(
    tmp_path: Path, undisturbed: tuple[dict[str, str], float]
) -> None:
    expected, seconds = undisturbed
    moments = random.Random(20)
    for _ in range(5):
        process = start(tmp_path, "--executor", "serial")
        time.sleep(moments.uniform(0.3, 0.9) * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert digests(tmp_path).items() <= expected.items()
    code, text = finish(start(tmp_path, "--executor", "serial"))
    assert code == 0, text
    assert digests(tmp_path) == expected
    assert not list((tmp_path / "conflicts").glob("*"))


@pytest.mark.slow
def test_a_parent_that_is_killed_takes_its_workers_along_and_leaves_no_failed_cell(
    tmp_path: Path, undisturbed: tuple[dict[str, str], float]
) -> None:
    expected, _ = undisturbed
    for _ in range(2):
        process = start(tmp_path, "--executor", "processes", "--jobs", "2")
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("scratch/*/training")) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        assert "Traceback" not in process.communicate(timeout=60)[1]
        assert not list((tmp_path / "failures").rglob("*.json"))
    code, text = finish(start(tmp_path, "--executor", "processes", "--jobs", "2"))
    assert code == 0, text
    assert digests(tmp_path) == expected


@pytest.mark.slow
def test_processes_find_what_serial_finds(tmp_path: Path, undisturbed: tuple[dict[str, str], float]) -> None:
    code, text = finish(start(tmp_path, "--executor", "processes", "--jobs", "2"))
    assert code == 0, text
    assert digests(tmp_path) == undisturbed[0]


@pytest.mark.slow
def test_two_runs_on_one_store_both_finish_and_lose_nothing(
    tmp_path: Path, undisturbed: tuple[dict[str, str], float]
) -> None:
    both = [start(tmp_path, "--executor", "serial") for _ in range(2)]
    for process in both:
        code, text = finish(process)
        assert code == 0, text
    assert digests(tmp_path) == undisturbed[0]
    assert not list((tmp_path / "conflicts").glob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_ctrl_c_ends_with_130_and_an_intact_store(
    tmp_path: Path, undisturbed: tuple[dict[str, str], float], executor: str
) -> None:
    expected, seconds = undisturbed
    process = start(tmp_path, "--executor", executor)
    deadline = time.monotonic() + 60 + 2 * seconds
    while not digests(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    code, text = finish(process)
    assert code == 130, text
    assert "Traceback" not in text
    assert digests(tmp_path).items() <= expected.items()
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
def test_a_full_disk_fails_the_cells_it_hits_and_the_next_run_completes_them(
    tmp_path: Path, undisturbed: tuple[dict[str, str], float]
) -> None:
    code, text = finish(start(tmp_path, "--executor", "serial", limit_bytes=20_000))
    assert code == 3, text
    assert "Traceback" not in text
    code, text = finish(start(tmp_path, "--executor", "serial", "--resume", "failed"))
    assert code == 0, text
    assert digests(tmp_path) == undisturbed[0]
