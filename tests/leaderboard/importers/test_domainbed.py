from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from robusteval.leaderboard.importers.domainbed import import_domainbed
from robusteval.leaderboard.importers.domainbed_table import Checkpoint, repeated, training_domain_table


def line(test_env: int | list[int], trial: int, hparams: int, step: int, **accuracies: float) -> dict[str, Any]:
    """One line as DomainBed logs it."""
    tests = test_env if isinstance(test_env, list) else [test_env]
    return {
        "args": {
            "algorithm": "ERM",
            "dataset": "PACS",
            "test_envs": tests,
            "trial_seed": trial,
            "hparams_seed": hparams,
            "holdout_fraction": 0.2,
        },
        "hparams": {"lr": 5e-5},
        "step": step,
        "epoch": 1.5,
        "loss": float("nan"),
        **{f"{name}_acc": value for name, value in accuracies.items()},
    }


def write(root: Path, runs: dict[str, list[dict[str, Any]]]) -> Path:
    for name, lines in runs.items():
        (root / name).mkdir(parents=True)
        (root / name / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return root


def sweep(root: Path, trials: int = 3) -> Path:
    """Two domains, two hyper-parameter draws, two checkpoints each; the best checkpoint is known by construction."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for trial in range(trials):
        for env in (0, 1):
            other = 1 - env
            for hparams in (0, 1):
                runs[f"{trial}{env}{hparams}"] = [
                    line(
                        env, trial, hparams, step,
                        **{
                            f"env{env}_in": 0.5 + 0.1 * env + 0.01 * trial + 0.001 * hparams + 0.0001 * step,
                            f"env{env}_out": 0.99,
                            f"env{other}_in": 1.0,
                            f"env{other}_out": 0.9 if (hparams, step) == (1, 0) else 0.8,
                        },
                    )
                    for step in (0, 300)
                ]  # fmt: skip
    return write(root, runs)


def test_selection_follows_the_training_domains_and_reports_the_large_part_of_the_test_domain(tmp_path: Path) -> None:
    found = import_domainbed(sweep(tmp_path))
    assert found.problems == []
    (entry,) = found.entries["domainbed-pacs"]
    # Draw 1 at step 0 has the best validation accuracy: 0.5 + 0.1 env + 0.01 trial + 0.001.
    assert entry.columns["env0"].value == pytest.approx(0.511)
    assert entry.columns["env1"].value == pytest.approx(0.611)
    assert entry.columns["average"].value == pytest.approx(0.561)
    assert entry.columns["validation"].value == pytest.approx(0.9)
    assert entry.columns["env0"].written == "51.1 +/- 0.5"
    assert entry.origin is not None
    assert entry.origin.cells["env0/trial2"] == repr(0.5 + 0.02 + 0.001)
    assert len(entry.origin.fields["selected"]) == 6


def test_the_printed_error_and_the_honest_ones_stand_beside_each_other() -> None:
    values = [0.70, 0.74, 0.72]
    found = repeated(values)
    assert found.printed_error == pytest.approx(np.std(values) / np.sqrt(3))
    assert found.standard_error == pytest.approx(stats.sem(values))
    assert found.interval == pytest.approx(stats.t.interval(0.95, 2, loc=0.72, scale=stats.sem(values)))
    assert found.interval is not None
    # For three trials the 95 % half-width is 5.27 times what is printed.
    assert (found.interval[1] - 0.72) / found.printed_error == pytest.approx(5.27, abs=0.005)


def test_one_trial_has_no_interval() -> None:
    assert (repeated([0.5]).interval, repeated([0.5]).standard_error) == (None, None)


def test_runs_with_two_test_domains_do_not_count_and_ties_go_to_the_first() -> None:
    base = {"dataset": "d", "algorithm": "a", "trial": 0, "hparams": 0}
    accuracy = {"env0_in": 0.1, "env0_out": 0.5, "env1_in": 0.9, "env1_out": 0.5}
    lines = [
        Checkpoint(**base, test_envs=(0, 1), step=0, accuracy={**accuracy, "env2_out": 1.0}),  # type: ignore[arg-type]
        Checkpoint(**base, test_envs=(0,), step=1, accuracy=accuracy),  # type: ignore[arg-type]
        Checkpoint(**base, test_envs=(0,), step=2, accuracy={**accuracy, "env0_in": 0.7}),  # type: ignore[arg-type]
    ]
    (row,) = training_domain_table(lines)
    assert row.domains[0].values == (0.1,)
    assert row.selected[0, 0].step == 1


def test_a_trial_without_all_domains_is_named_and_left_out_of_the_average(tmp_path: Path) -> None:
    root = sweep(tmp_path, trials=2)
    for name in ("110", "111"):
        (root / name / "results.jsonl").unlink()
    (entry,) = import_domainbed(root).entries["domainbed-pacs"]
    assert entry.columns["average"].n == 1
    assert entry.columns["env0"].n == 2
    assert entry.origin is not None
    assert entry.origin.notes == ("trial 1 lacks a test domain and is not in the average",)


def test_a_broken_line_is_named_and_the_others_count(tmp_path: Path) -> None:
    root = sweep(tmp_path)
    path = root / "000" / "results.jsonl"
    lacking = json.dumps({"args": {"test_envs": [0]}, "env1_out_acc": 0.5, "env0_in_acc": 0.5})
    path.write_text(path.read_text() + '{"args": \n' + lacking + "\n" + json.dumps({"args": 1}) + "\n")
    found = import_domainbed(root)
    assert [problem.split(": ")[0] for problem in found.problems] == [f"{path}:{number}" for number in (3, 4, 5)]
    assert "field 'dataset' is missing" in found.problems[1]
    assert len(found.entries["domainbed-pacs"]) == 1
