"""Executors on the command line: what there is, what a plan says of workers, and what a wrong setting gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def test_a_plan_for_a_cluster_says_how_many_workers_help_and_what_they_would_wait_for(
    command: Any, tmp_path: Path
) -> None:
    code, out, _ = command("plan", "smoke", "--store", tmp_path, "--executor", "ray")
    assert code == 0
    assert "workers that help: " in out and "in passes: 1: 100 %, 2: " in out
    assert "of all passes: erm seed 0: train > aft seed 0: train > aft seed 0: attacked" in " ".join(out.split())
    document = json.loads(command("plan", "smoke", "--store", tmp_path, "--executor", "ray", "--json")[1])
    workers = document["workers"]
    assert workers["passes"] == document["passes_left"] == workers["passes_by_workers"]["1"]
    assert workers["passes_by_workers"][str(workers["useful"])] >= workers["longest_chain_passes"]


def test_a_plan_for_this_machine_says_nothing_of_workers(command: Any, tmp_path: Path) -> None:
    assert "workers" not in command("plan", "smoke", "--store", tmp_path)[1]
    assert "workers" not in json.loads(command("plan", "smoke", "--store", tmp_path, "--json")[1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--executor", "rai"], "unknown executor 'rai'; did you mean 'ray'? (robusteval ls executors)"),
        (["--executor-option", "partition"], "--executor-option 'partition': is not KEY=VALUE"),
        (["--executor-option", "a=1", "--executor-option", "a=2"], "--executor-option 'a=2': comes twice"),
        (["--executor", "serial", "--executor-option", "a=1"], "executor 'serial': unknown parameter 'a'"),
        (["--executor", "processes", "--address", "host:1"], "--address 'host:1' is for executors that join a cluster"),
    ],
)
def test_a_wrong_setting_is_one_line(command: Any, tmp_path: Path, words: list[str], message: str) -> None:
    code, _, err = command("run", "smoke", "--store", tmp_path, *words)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.rglob("records"))
