from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from robusteval.cli.options import DEFAULT_STORE
from robusteval.cli.suites import _continuation

Command = Callable[..., tuple[int, str, str]]


def test_a_run_on_a_budget_shares_the_models_and_has_a_table_of_its_own(
    command: Command, micro: Path, finished: Path, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(finished, tmp_path / "store"))
    before = command("show", "micro", "--store", store)
    serial = ("--executor", "serial", "--device", "cpu")
    code, out, err = command("run", micro, "--store", store, "--budget", "6", *serial)
    assert code == 0
    assert "4 cells run, 6 were there" in err
    assert "micro+budget=6" in out
    assert command("show", "micro+budget=6", "--store", store) == (0, out, "")
    assert command("show", "micro", "--store", store) == before


def test_a_budget_is_at_least_one_pass(command: Command, micro: Path) -> None:
    code, _, err = command("plan", micro, "--budget", "0")
    assert code == 2
    assert "--budget" in err


def test_the_command_that_continues_names_the_budget() -> None:
    assert _continuation("digits", DEFAULT_STORE, None, 500) == "robusteval run digits --budget 500"
