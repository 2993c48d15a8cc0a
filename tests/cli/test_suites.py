from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from robusteval.cli.options import DEFAULT_STORE
from robusteval.cli.suites import _continuation
from robusteval.models.build import build_classifier
from robusteval.models.checkpoints import save_checkpoint
from robusteval.schema.types import Component
from robusteval.store.store import Store

Command = Callable[..., tuple[int, str, str]]
SERIAL = ("--executor", "serial", "--device", "cpu")


def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "store"))


def damage_weights(store: Path, label: str) -> None:
    """Cut the checkpoint of a row of `micro`."""
    place = Store.open(store)
    plan = place.get_plan("micro")
    assert plan is not None
    training = place.get(plan.row(label)[0].train_key or "").training
    assert training is not None
    (path,) = (store / "artefacts").rglob(f"{training.weights}.safetensors")
    path.write_bytes(path.read_bytes()[:-100])


def test_plan_json_ends_with_the_totals(command: Command, micro: Path, tmp_path: Path) -> None:
    code, out, err = command("plan", micro, "--store", tmp_path / "store", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert list(document)[-7:] == ["cells", "done", "pending", "running", "stale", "failed", "blocked"]
    assert [document[name] for name in ("cells", "done", "pending", "failed", "blocked")] == [10, 0, 10, 0, 0]
    assert document["suite"] == "micro"
    assert set(document["plan"][0]) >= {"key", "title", "state", "reason", "passes"}
    assert not (tmp_path / "store").exists()


def test_a_dry_run_is_the_plan(command: Command, micro: Path, tmp_path: Path) -> None:
    planned = command("plan", micro, "--store", tmp_path / "store")
    assert command("run", micro, "--store", tmp_path / "store", "--dry-run") == planned
    assert "10 cells, 0 done, 10 pending" in planned[1]
    assert not (tmp_path / "store").exists()


def test_a_run_prints_the_table_and_its_progress_apart(command: Command, micro: Path, tmp_path: Path) -> None:
    code, out, err = command("run", micro, "--store", tmp_path / "store", "--only", "label=erm", *SERIAL)
    assert code == 0
    assert "A_id" in out
    assert "R_ood" in out
    assert "[1/5] erm seed 0: train: " in err
    assert "[5/5] " in err
    assert "5 cells run, 0 were there" in err
    row = next(line for line in out.splitlines() if line.startswith("longer"))
    assert "unranked" in row


def test_a_second_run_finds_everything_done(command: Command, micro: Path, finished: Path, tmp_path: Path) -> None:
    store = copied(finished, tmp_path)
    shown = command("show", "micro", "--store", store)[1]
    code, out, err = command("run", micro, "--store", store, *SERIAL)
    assert (code, out) == (0, shown)
    assert "0 cells run, 10 were there" in err
    assert json.loads(command("plan", micro, "--store", store, "--json")[1])["done"] == 10


def test_quiet_leaves_only_the_result(command: Command, micro: Path, finished: Path, tmp_path: Path) -> None:
    code, out, err = command("run", micro, "--store", copied(finished, tmp_path), *SERIAL, "-q", "--json")
    assert (code, err) == (0, "")
    assert [row["method"] for row in json.loads(out)] == ["erm", "longer"]


def test_a_damaged_checkpoint_is_named_the_rest_runs_and_the_exit_is_3(
    command: Command, micro: Path, finished: Path, tmp_path: Path
) -> None:
    store = copied(finished, tmp_path)
    damage_weights(store, "erm")
    planned = json.loads(command("plan", micro, "--store", store, "--json")[1])
    assert (planned["done"], planned["failed"]) == (9, 1)
    code, _, err = command("run", micro, "--store", store, *SERIAL)
    assert code == 3
    assert "erm seed 0: train" in err
    assert "the checkpoint is damaged" in err
    assert "Traceback" not in err
    code, _, err = command("run", micro, "--store", store, *SERIAL, "--resume", "failed")
    assert code == 0
    assert "1 cells run, 9 were there" in err


def test_all_runs_everything_again_with_the_same_results(
    command: Command, micro: Path, finished: Path, tmp_path: Path
) -> None:
    store = copied(finished, tmp_path)
    before = command("show", "micro", "--store", store, "--format", "json")[1]
    code, out, err = command("run", micro, "--store", store, *SERIAL, "--resume", "all", "--json")
    assert code == 0
    assert "10 cells run" in err
    assert [row["r_id"] for row in json.loads(out)] == [row["r_id"] for row in json.loads(before)]


def test_a_flag_beats_the_environment_and_that_beats_the_default(
    command: Command, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("show", "micro")[0] == 2
    monkeypatch.setenv("ROBUSTEVAL_STORE", str(finished))
    assert command("show", "micro")[0] == 0
    assert command("show", "micro", "--store", tmp_path / "other")[0] == 2


def test_validate_tells_every_problem_and_every_right_suite(command: Command, micro: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(micro.read_text().replace("epochs: 1", "epoch: 1").replace("epsilon: 0.1", "epsilon: 8/0"))
    code, out, err = command("validate", micro, bad)
    assert (code, err) == (2, "")
    lines = out.splitlines()
    assert lines[0] == f"{micro}: ok (2 rows)"
    assert [line.partition(": ")[0] for line in lines[1:]] == [f"{bad}:6", f"{bad}:12"]
    found = json.loads(command("validate", micro, bad, "--json")[1])
    assert [len(entry["problems"]) for entry in found] == [0, 2]
    assert command("validate", "digits", "smoke")[0] == 0


def test_an_interrupt_stops_at_once_and_loses_nothing(micro: Path, finished: Path, tmp_path: Path) -> None:
    store = copied(finished, tmp_path)
    before = {record.cell_key for record in Store.open(store).records()}
    suite = tmp_path / "slow.yaml"
    suite.write_text(micro.read_text().replace("name: micro", "name: slow").replace("epochs: 2", "epochs: 100000"))
    process = subprocess.Popen(
        [sys.executable, "-m", "robusteval.cli.main", "run", str(suite), "--store", str(store), *SERIAL],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("[0/5] cells")
    for _ in range(600):
        if any((store / "scratch").rglob("*.*")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert "longer" in out
    assert {record.cell_key for record in Store.open(store).records()} == before


def test_an_executor_is_checked_even_if_nothing_is_left_to_run(command: Command, micro: Path, finished: Path) -> None:
    code, out, err = command("run", micro, "--store", finished, "--executor", "nope")
    assert (code, out) == (2, "")
    assert "unknown executor 'nope'" in err


def test_another_suite_of_the_same_name_does_not_take_the_place_of_a_table(
    command: Command, micro: Path, finished: Path, tmp_path: Path
) -> None:
    store, mine = copied(finished, tmp_path), tmp_path / "mine.yaml"
    before = command("show", "micro", "--store", store, "--json")
    mine.write_text(micro.read_text().replace("label: longer", "label: edited"))
    code, out, err = command("run", mine, "--store", store, *SERIAL)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {mine}: the store has another suite called micro version 1; change 'name'")
    assert command("show", "micro", "--store", store, "--json") == before
    code, out, _ = command("run", mine, "--store", store, *SERIAL, "--replace-plan", "--json")
    assert code == 0
    assert [row["method"] for row in json.loads(out)] == ["erm", "edited"]


def test_a_suite_that_asks_for_the_same_cells_is_the_same_suite(
    command: Command, micro: Path, finished: Path, tmp_path: Path
) -> None:
    store, moved = copied(finished, tmp_path), tmp_path / "moved.yaml"
    moved.write_text(micro.read_text().replace("One row", "A row") + "resources: {memory_gb: 3}\n")
    assert command("run", moved, "--store", store, *SERIAL)[0] == 0


def test_a_method_with_a_new_head_starts_from_a_model_of_other_classes(
    command: Command, micro: Path, tmp_path: Path
) -> None:
    component = Component(name="small-cnn", params={"width": 4})
    start = build_classifier(
        component, seed=0, classes=5, input_shape=(3, 16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
    (tmp_path / "five.safetensors").write_bytes(save_checkpoint(start, component, class_names=tuple("abcde")))
    suite = tmp_path / "s.yaml"
    row = "{method: lp-ft, label: longer, start: ./five.safetensors, params: {epochs: 1}}"
    suite.write_text(micro.read_text().replace("{method: erm, label: longer, params: {epochs: 2, lr: 0.05}}", row))
    code, out, err = command("run", suite, "--store", tmp_path / "store", *SERIAL, "--only", "label=longer", "--json")
    assert code == 0, err
    assert json.loads(out)[1]["a_id"] is not None


def test_validate_checks_every_suite_even_if_one_is_unknown(command: Command, micro: Path) -> None:
    code, out, err = command("validate", "nosuch", micro)
    assert (code, err) == (2, "")
    lines = out.splitlines()
    assert lines[0].startswith("nosuch: unknown suite 'nosuch'")
    assert lines[1] == f"{micro}: ok (2 rows)"


def test_a_verbose_plan_shows_the_roles_that_only_takes(command: Command, micro: Path, tmp_path: Path) -> None:
    out = command("plan", micro, "--store", tmp_path, "-v")[1]
    assert "role" in out
    assert "r_ood@0" in out


def test_the_command_that_continues_a_run_repeats_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROBUSTEVAL_STORE", raising=False)
    assert _continuation("digits", DEFAULT_STORE, None) == "robusteval run digits"
    expected = "robusteval run digits --store 'my results' --only 'label=erm,role=r_*'"
    assert _continuation("digits", "my results", "label=erm,role=r_*") == expected
    monkeypatch.setenv("ROBUSTEVAL_STORE", "my results")
    assert _continuation("digits", "my results", None) == "robusteval run digits"
