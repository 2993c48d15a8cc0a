from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

Command = Callable[..., tuple[int, str, str]]


def test_the_exit_code_says_whether_there_is_a_problem(command: Command, tmp_path: Path) -> None:
    code, out, err = command("doctor", "--store", tmp_path / "store", "--json")
    findings = json.loads(out)
    assert {"python", "torch", "device", "packages", "store", "disk"} <= {finding["check"] for finding in findings}
    problems = [finding for finding in findings if finding["status"] == "problem"]
    assert code == (1 if problems else 0)
    assert all(finding["fix"] for finding in problems)
    assert not (tmp_path / "store").exists()
    assert err == ""


def test_a_store_that_cannot_be_written_is_a_problem(command: Command) -> None:
    code, out, _ = command("doctor", "--store", "/proc/robusteval", "--json")
    (found,) = [finding for finding in json.loads(out) if finding["check"] == "store"]
    assert (code, found["status"]) == (1, "problem")
    assert "ROBUSTEVAL_STORE" in found["fix"]


def test_every_check_is_a_line_of_the_table(command: Command, tmp_path: Path) -> None:
    findings = json.loads(command("doctor", "--store", tmp_path, "--json")[1])
    out = command("doctor", "--store", tmp_path)[1]
    for finding in findings:
        assert finding["detail"] in out
