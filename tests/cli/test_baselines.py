from __future__ import annotations

import json
from pathlib import Path

import pytest

from robusteval.scoring.baselines import load_baseline, write_obtained


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "baselines"


def test_a_stored_row_becomes_a_baseline_and_is_shown(command, finished, folder):
    code, out, _ = command("baseline", "save", "main", "--dir", folder, "--from", "micro:erm", "--store", finished)
    assert code == 0
    assert len(out.splitlines()) == 4
    assert f"{folder / 'main' / 'a_id'}.json  A_id on upright: " in out
    code, out, _ = command("baseline", "show", "--dir", folder)
    assert code == 0
    assert "small-cnn" in out
    assert "R_ood linf-0.1 on rotated" in out
    _, out, _ = command("baseline", "show", "main", "--dir", folder, "--json")
    assert [cell["role"] for cell in json.loads(out)] == ["a_id", "a_ood", "r_id@0", "r_ood@0"]
    code, _, _ = command("compare", folder / "main", "micro:erm", "--store", finished)
    assert code == 0


def test_obtained_files_are_accepted(command, finished, folder):
    command("baseline", "save", "main", "--dir", folder, "--from", "micro:erm", "--store", finished)
    before = load_baseline(folder / "main")
    write_obtained(folder / "main", before.cells[:1])
    code, out, _ = command("baseline", "save", "main", "--dir", folder)
    assert code == 0
    assert len(out.splitlines()) == 4
    assert load_baseline(folder / "main") == before


def test_drift_compares_with_the_best_ever_accepted(command, finished, folder):
    for row in ("longer", "erm"):
        command("baseline", "save", "main", "--dir", folder, "--from", f"micro:{row}", "--store", finished, "--force")
    code, out, err = command("baseline", "drift", "main", "--dir", folder, "--margin", "1", "--alpha", "0.4")
    assert "baseline main against best main" in out
    assert code == 4
    assert "main has drifted" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("save", "main"), "no check left *.obtained.json there"),
        (("show", "mian"), "unknown baseline in"),
        (("drift", "main"), "unknown baseline in"),
        (("save", "main", "--from", "micro"), "a baseline is about one model; name its row, as micro:erm"),
    ],
)
def test_what_cannot_be_done_is_one_line(command, finished, folder, arguments, words):
    store = ("--store", finished) if arguments[0] == "save" else ()
    code, out, err = command("baseline", *arguments, "--dir", folder, *store)
    assert (code, out) == (2, "")
    assert words in err
