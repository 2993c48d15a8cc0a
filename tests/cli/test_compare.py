from __future__ import annotations

import json

import pytest

from robusteval.store.store import Store


def test_two_rows_of_one_store_are_compared_cell_by_cell(command, finished):
    code, out, _ = command("compare", "micro:erm", "micro:longer", "--store", finished)
    assert code == 0
    assert "micro:longer against micro:erm: inconclusive" in out
    for cell in ("A_id", "R_id linf-0.1", "A_ood", "R_ood linf-0.1"):
        assert cell in out
    assert "examples would decide" in out


def test_inconclusive_has_an_exit_code_of_its_own_when_strict(command, finished):
    code, _, _ = command("compare", "micro:erm", "micro:erm", "--store", finished, "--strict")
    assert code == 5


def test_a_drop_ends_with_four_and_the_json_says_all(command, finished, tmp_path):
    code, out, _ = command(
        "compare", "micro:longer", "micro:erm", "--store", finished, "--format", "json", "--cells", "a_id", "--alpha",
        "0.4", "--margin", "1",
    )  # fmt: skip
    found = json.loads(out)
    (cell,) = found["cells"]
    assert (cell["column"], found["rule"]["margin"], found["rule"]["alpha"]) == ("a_id", 0.01, 0.4)
    assert code == {"regressed": 4, "pass": 0, "inconclusive": 0}[found["verdict"]]
    assert cell["losses"] > cell["gains"]
    assert found["verdict"] == "regressed"


def test_whole_stores_are_compared_row_by_row(command, finished):
    code, out, _ = command("compare", finished, f"{finished}::micro", "--format", "md")
    assert code == 0
    assert "| erm | A_id |" in out
    assert "| longer | R_ood linf-0.1 |" in out


def test_records_are_compared_by_key_and_by_file(command, finished):
    place = Store.open(finished)
    plan = place.get_plan("micro")
    keys = [plan.row(label)[0].cells["r_id@0"] for label in plan.labels]
    path = finished / "records" / keys[1][:2] / f"{keys[1]}.json"
    code, out, _ = command("compare", keys[0][:12], path, "--store", finished, "--format", "github")
    assert code == 0
    assert out.startswith("### Robustness: inconclusive")
    assert "| robust linf-0.1 |" in out


def test_different_questions_are_refused_with_the_fields(command, finished):
    plan = Store.open(finished).get_plan("micro")
    cells = plan.rows[0].cells
    code, out, err = command("compare", cells["a_id"], cells["r_id@0"], "--store", finished)
    assert (code, out) == (2, "")
    assert "answer different questions" in err
    assert "data.n 20 -> 8" in err
    assert "evaluator.name clean -> adversarial" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("micro:erm", "micro:erk"), "unknown row of suite micro 'erk'; did you mean 'erm'?"),
        (("micro:erm", "nothing.json"), "nothing.json: cannot be read"),
        (("micro:erm", "model.safetensors"), "choose one with --suite"),
        (("micro:erm", "micro:longer", "--margin", "200"), "comparison: parameter 'margin' is 2.0"),
        (("micro:erm", "micro:longer", "--cells", "r_ood@7"), "have no finished cell r_ood@7 in common"),
        (("micro:erm", "tests"), "neither a store nor a baseline"),
    ],
)
def test_what_cannot_be_compared_is_one_line(command, finished, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").mkdir()
    code, out, err = command("compare", *arguments, "--store", finished)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
