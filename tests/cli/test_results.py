from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from robusteval.store.store import Store

Command = Callable[..., tuple[int, str, str]]


def test_json_is_a_list_with_one_object_a_method(command: Command, finished: Path) -> None:
    code, out, _ = command("show", "micro", "--store", finished, "--format", "json")
    assert code == 0
    rows = json.loads(out)
    assert [row["method"] for row in rows] == ["erm", "longer"]
    for row in rows:
        for column in ("a_id", "r_id", "a_ood", "r_ood"):
            assert 0 <= row[column]["low"] <= row[column]["value"] <= row[column]["high"] <= 1
            assert row[column]["n"] == (20 if column.startswith("a") else 8)
        assert isinstance(row["pareto"], bool)
    assert [row["train_passes_per_example"] for row in rows] == [2, 4]


def test_every_format_holds_the_same_rows(command: Command, finished: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(command("show", "micro", "--store", finished, "--format", "csv")[1])))
    assert [row["method"] for row in rows] == ["erm", "longer"]
    markdown = command("show", "micro", "--store", finished, "--format", "md")[1].splitlines()
    assert markdown[0].startswith("| method | A_id |")
    assert markdown[3].startswith("| longer |")
    table = command("show", "micro", "--store", finished)[1]
    assert table.splitlines()[0] == "micro version 1"
    assert "Wilson" in table


def test_pareto_takes_any_two_columns(command: Command, finished: Path) -> None:
    arguments = ("show", "micro", "--store", finished, "--format", "json")
    rows = json.loads(command(*arguments, "--pareto", "a_id,train_passes_per_example")[1])
    assert rows[0]["pareto"]
    code, _, err = command(*arguments, "--pareto", "a_id,speed")
    assert code == 2
    assert "unknown column 'speed'" in err


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_plot_writes_a_picture(command: Command, finished: Path, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"figure.{ending}"
    code, _, err = command("show", "micro", "--store", finished, "--plot", file, "--pareto", "a_id,r_id")
    assert code == 0, err
    assert file.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")


def test_plot_needs_two_columns(command: Command, finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "f.png"
    code, _, err = command("show", "micro", "--store", finished, "--plot", file, "--pareto", "a_id,r_id,a_ood")
    assert code == 2
    assert "names 3" in err


def test_a_suite_is_found_by_name_version_and_file(command: Command, finished: Path, micro: Path) -> None:
    expected = command("show", "micro", "--store", finished)
    assert command("show", "micro@1", "--store", finished) == expected
    assert command("show", micro, "--store", finished) == expected


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("micor", "did you mean 'micro'"),
        ("micro@2", "no stored version 2; write micro@1"),
        ("micro@" + "9" * 5000, "version after @ is a number"),
        ("zzz", "(`robusteval show` lists what is in"),
        ("smoke", "`robusteval run smoke` makes results"),
        ("a" * 5000, "is no suite name"),
        ("micro@new", "version after @ is a number"),
        ("abcdef0", "no stored cell"),
        ("missing.yaml", "no such file"),
    ],
)
def test_what_is_not_stored_is_a_usage_error(command: Command, finished: Path, what: str, says: str) -> None:
    code, out, err = command("show", what, "--store", finished)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_without_a_name_the_stored_suites_are_listed(command: Command, finished: Path, tmp_path: Path) -> None:
    assert "micro" in command("show", "--store", finished)[1]
    listed = json.loads(command("show", "--store", finished, "--format", "json")[1])
    assert [entry["suite"] for entry in listed] == ["micro"]
    assert "nothing is stored" in command("show", "--store", tmp_path / "empty")[1]


def test_a_record_is_found_by_the_beginning_of_its_key(command: Command, finished: Path) -> None:
    plan = Store.open(finished).get_plan("micro")
    assert plan is not None
    key = plan.rows[0].cells["r_id@0"]
    code, out, _ = command("show", key[:12], "--store", finished)
    assert code == 0
    assert key in out
    assert "robust_accuracy" in out
    assert "outcome fgsm" in out
    record = json.loads(command("show", key[:12], "--store", finished, "--format", "json")[1])
    assert record["cell_key"] == key
    train = plan.rows[0].train_key
    assert train is not None
    assert "random weights" in command("show", train, "--store", finished)[1]


def test_a_damaged_record_is_named_and_its_row_not_ranked(command: Command, finished: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(finished, tmp_path / "store"))
    plan = Store.open(store).get_plan("micro")
    assert plan is not None
    key = plan.rows[0].cells["a_id"]
    (path,) = (store / "records").rglob(f"{key}.json")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    code, out, err = command("show", "micro", "--store", store)
    assert code == 3
    assert key in err
    assert "damaged record" in err
    assert "unranked" in next(line for line in out.splitlines() if line.startswith("erm"))


RUN = ("--executor", "serial", "--device", "cpu", "-q")


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished store, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "damaged-store"))


@pytest.mark.parametrize("damage", ["missing", "edited"])
def test_a_lost_id_list_is_named_and_the_next_run_writes_it_again(
    command: Command, micro: Path, store: Path, damage: str
) -> None:
    before = command("show", "micro", "--store", store)
    lists = {file: file.read_text() for file in (store / "ids").iterdir()}
    for file, text in lists.items():
        if damage == "missing":
            file.unlink()
        else:
            file.write_text(json.dumps({**json.loads(text), "groups": None, "ids": json.loads(text)["ids"][::-1]}))
    code, out, err = command("show", "micro", "--store", store)
    assert code == 3
    assert all(str(file) in err for file in lists)
    assert "unranked" in out
    code, out, err = command("run", micro, "--store", store, *RUN)
    assert (code, err) == (0, "")
    assert {file: file.read_text() for file in (store / "ids").iterdir()} == lists
    assert command("show", "micro", "--store", store) == before


def test_changed_domains_are_named_and_only_their_row_is_not_ranked(command: Command, store: Path) -> None:
    plan = Store.open(store).get_plan("micro")
    assert plan is not None
    (path,) = (store / "records").rglob(f"{plan.rows[0].cells['a_id']}.json")
    document = json.loads(path.read_text())
    document["evaluation"]["domains"] = [["upright", 3]]
    path.write_text(json.dumps(document))
    code, out, err = command("show", "micro", "--store", store)
    assert code == 3
    assert str(path) in err
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert "unranked" in lines["erm"]
    assert "unranked" not in lines["longer"]


def test_a_damaged_failure_is_a_note(command: Command, store: Path) -> None:
    plan = Store.open(store).get_plan("micro")
    assert plan is not None
    key = plan.rows[0].cells["a_id"]
    (path,) = (store / "records").rglob(f"{key}.json")
    path.unlink()
    bad = store / "failures" / key[:2] / f"{key}.json"
    bad.parent.mkdir(parents=True)
    bad.write_text("{")
    code, out, err = command("show", "micro", "--store", store)
    assert code == 3
    assert str(bad) in err
    assert "longer" in out


def test_a_damaged_plan_of_another_suite_is_a_note_in_the_list_and_nothing_to_this_one(
    command: Command, store: Path
) -> None:
    (store / "plans" / "other@1.json").write_text("{")
    assert command("show", "micro", "--store", store)[0] == 0
    code, out, err = command("show", "--store", store)
    assert code == 3
    assert "micro" in out
    assert "other@1.json" in err
    assert command("show", "other", "--store", store)[0] == 3


def test_damaged_scratch_stops_a_plain_run_by_name_and_is_set_aside_by_resume_failed(
    command: Command, micro: Path, store: Path
) -> None:
    plan = Store.open(store).get_plan("micro")
    assert plan is not None
    key = plan.rows[0].cells["r_id@0"]
    (path,) = (store / "records").rglob(f"{key}.json")
    path.unlink()
    state = store / "scratch" / key / "adversarial.json"
    state.parent.mkdir(parents=True)
    state.write_text("half")
    code, _, err = command("run", micro, "--store", store, *RUN)
    assert code == 3
    assert str(state) in err
    assert state.read_text() == "half"
    code, _, err = command("run", micro, "--store", store, *RUN, "--resume", "failed")
    assert (code, err) == (0, "")
    assert [file.read_text() for file in (store / "damaged").iterdir()] == ["half"]


def test_a_run_with_nothing_to_do_writes_nothing(command: Command, micro: Path, store: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    assert command("run", micro, "--store", store, *RUN)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


def test_json_has_a_short_name(command: Command, finished: Path) -> None:
    for what in ((), ("micro",)):
        expected = command("show", *what, "--store", finished, "--format", "json")
        assert command("show", *what, "--store", finished, "--json") == expected


def test_a_plot_that_cannot_be_written_is_a_usage_error(command: Command, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    code, _, err = command("show", "micro", "--store", finished, "--plot", tmp_path / "taken" / "x.png", "-q")
    assert code == 2
    assert err.count("\n") == 1
    assert err.startswith(f"error: --plot {tmp_path / 'taken' / 'x.png'}: cannot be written")
