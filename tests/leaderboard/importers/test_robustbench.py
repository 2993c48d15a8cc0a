from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusteval.leaderboard.importers.report import UnreadableNumberError, fraction, percent, write_import
from robusteval.leaderboard.importers.robustbench import import_robustbench
from robusteval.leaderboard.shelf import Shelf

MODEL = {
    "link": "https://example.org/paper",
    "name": "A <b>model</b> &amp; more",
    "authors": "A. One, B. Two",
    "additional_data": False,
    "number_forward_passes": 1,
    "dataset": "cifar10",
    "venue": "GitHub,<br>Oct 2031",
    "architecture": "WRN",
    "eps": "8/255",
    "clean_acc": "93.68",
    "reported": "",
    "autoattack_acc": "73.71",
    "footnote": "Uses <a href='javascript:x'>300M</a> images, \\(\\ell_\\infty\\) = 0.031.",
    "unreliable": True,
    "something_new": {"kept": [1, 2.5, None]},
}


def write(root: Path, place: str, **changed: Any) -> Path:
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**MODEL, **changed}))
    return path


def table(path: Path, rows: dict[str, list[str]], corruptions: tuple[str, ...] = ("fog", "fog", "snow")) -> None:
    severities = [str(corruptions[:index].count(name) + 1) for index, name in enumerate(corruptions)]
    lines = [["", *corruptions], ["", *severities], *([name, *values] for name, values in rows.items())]
    path.write_text("\n".join(",".join(line) for line in lines) + "\n")


def test_every_field_is_kept_and_numbers_become_fractions(tmp_path: Path) -> None:
    write(tmp_path, "cifar10/Linf/One2030_WRN.json", external="70.5")
    found = import_robustbench(tmp_path)
    (entry,) = found.entries["cifar10-linf"]
    assert found.problems == []
    assert entry.id == "One2030_WRN"
    assert entry.badge == "reported"
    assert entry.origin is not None
    assert entry.origin.fields == {**MODEL, "external": "70.5"}
    assert entry.origin.file == "cifar10/Linf/One2030_WRN.json"
    values = {key: (value.value, value.written, value.low, value.n) for key, value in entry.columns.items()}
    assert values == {
        "a_id": (0.9368, "93.68", None, None),
        "r_id": (0.7371, "73.71", None, None),
        "r_best": (0.705, "70.5", None, None),
    }
    assert entry.claims.venue == "GitHub, Oct 2031"
    assert "javascript" not in entry.claims.footnote
    assert entry.claims.epsilon == "8/255"
    assert entry.flags == ("declared-unreliable",)


def test_an_absent_number_stays_absent(tmp_path: Path) -> None:
    for index, nothing in enumerate(("", "null", None)):
        write(tmp_path, f"cifar10/Linf/M{index}.json", reported=nothing, autoattack_acc=nothing)
    for entry in import_robustbench(tmp_path).entries["cifar10-linf"]:
        assert set(entry.columns) == {"a_id"}


def test_a_broken_file_is_named_and_the_others_come(tmp_path: Path) -> None:
    write(tmp_path, "cifar10/Linf/Good.json")
    write(tmp_path, "cifar10/Linf/High.json", clean_acc="193.0")
    write(tmp_path, "cifar10/Linf/Words.json", autoattack_acc="about 50")
    (tmp_path / "cifar10/Linf/Cut.json").write_text('{"name": ')
    (tmp_path / "cifar10/Linf/List.json").write_text("[]")
    (tmp_path / "cifar10/Linf/Twice.json").write_text('{"eps": "1", "eps": "2"}')
    found = import_robustbench(tmp_path)
    assert [entry.id for entry in found.entries["cifar10-linf"]] == ["Good"]
    named = {Path(line.split(":")[0]).name: line for line in found.problems}
    assert set(named) == {"High.json", "Words.json", "Cut.json", "List.json", "Twice.json"}
    assert "clean_acc: '193.0' is not a percentage" in named["High.json"]
    assert "autoattack_acc: 'about 50' is not a number" in named["Words.json"]
    assert "'eps' stands there twice" in named["Twice.json"]


def test_what_the_source_contradicts_itself_about_is_noted(tmp_path: Path) -> None:
    write(tmp_path, "cifar100/Linf/A.json", external="90")
    path = write(tmp_path, "cifar100/Linf/B.json", dataset="cifar100")
    path.write_text(path.read_text().replace('"eps"', '"clean_acc": "93.68", "eps"', 1))
    first, second = import_robustbench(tmp_path).entries["cifar100-linf"]
    assert first.origin is not None
    assert second.origin is not None
    assert first.origin.notes == (
        "its dataset field says 'cifar10', its folder 'cifar100'",
        "external 90 is above autoattack_acc 73.71",
    )
    assert second.origin.notes == ("its field 'clean_acc' stands there twice, with the same value",)


def test_corruption_cells_go_to_their_model_by_name_or_by_their_mean(tmp_path: Path) -> None:
    for name, mean in (("A", "60.0"), ("B_x", "50.00"), ("C", "40.0")):
        write(tmp_path, f"cifar10/corruptions/{name}.json", autoattack_acc=None, corruptions_acc=mean, eps=None)
    folder = tmp_path / "cifar10/corruptions"
    rows = {"A": ["0.7", "0.6", "0.5"], "Bx": ["0.6", "0.5", "0.4"], "C": ["0.9", "0.9", "0.9"], "D": ["0.1"] * 3}
    table(folder / "unaggregated_results.csv", rows)
    found = import_robustbench(tmp_path)
    a, b, c = found.entries["cifar10-corruptions"]
    assert a.origin is not None
    assert b.origin is not None
    assert c.origin is not None
    assert a.origin.cells == {"fog/1": "0.7", "fog/2": "0.6", "snow/1": "0.5"}
    assert b.origin.cells == {"fog/1": "0.6", "fog/2": "0.5", "snow/1": "0.4"}
    assert "has the mean 90.00" in c.origin.notes[0]
    assert found.problems == ["cifar10/corruptions/unaggregated_results.csv: no model is called 'D'"]
    assert found.counts["corruption cells"] == 12


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,fog\n", "two header rows"),
        (",fog,fog\n,1,1\nM,0.1,0.2\n", "twice"),
        (",fog\n,1\nM,0.1,0.2\n", "row 3 has 3 fields"),
        (",fog\n,1\nM,7\n", "row 3, fog/1: '7' is not an accuracy"),
        (",fog\n,1\nM,x\n", "row 3, fog/1: 'x' is not a number"),
    ],
)
def test_a_broken_table_is_named(tmp_path: Path, text: str, says: str) -> None:
    write(tmp_path, "cifar10/corruptions/M.json")
    (tmp_path / "cifar10/corruptions/unaggregated_results.csv").write_text(text)
    (problem,) = import_robustbench(tmp_path).problems
    assert says in problem


def test_writing_twice_changes_nothing_and_an_update_supersedes(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    write(source, "cifar10/Linf/A.json")
    assert write_import(import_robustbench(source), out).added == 1
    assert write_import(import_robustbench(source), out).unchanged == 1
    write(source, "cifar10/Linf/A.json", clean_acc="90")
    assert write_import(import_robustbench(source), out).superseding == 1
    assert write_import(import_robustbench(source), out).unchanged == 1
    contents = Shelf(out / "cifar10-linf").read()
    assert contents.problems == ()
    (active,) = contents.active()
    assert (active.supersedes, active.columns["a_id"].value) == ("A", 0.9)


def test_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    write(source, "..evil/L inf/..%2f..%2fA <script>.json", name="../../x", link="javascript:alert(1)")
    written = write_import(import_robustbench(source), out)
    assert written.problems == ()
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert files == ["evil-l-inf/board.yaml", "evil-l-inf/entries/2f..-2fA-script.json"]


@given(st.decimals(min_value=0, max_value=100, places=2, allow_nan=False))
def test_a_percentage_is_read_to_the_last_digit(number: Any) -> None:
    for text in (f"{number}", f" {number}% "):
        value = percent(text)
        assert value is not None
        assert round(100 * value.value, 2) == float(number)
    share = fraction(str(number / 100))
    assert share is not None
    assert share.value == float(number / 100)


@given(st.text(max_size=50))
def test_any_text_is_a_number_or_nothing_or_refused(text: str) -> None:
    try:
        value = percent(text)
    except UnreadableNumberError:
        return
    assert value is None or 0 <= value.value <= 1


@pytest.mark.shared
def test_all_published_entries_come_in_with_every_field(shared: Path) -> None:
    root = shared / "data" / "results" / "robustbench_model_info"
    found = import_robustbench(root)
    assert found.problems == []
    counted = {"models": 236, "corruption rows": 60, "corruption cells": 4320, "rows matched by their mean": 2}
    assert found.counts == counted
    sizes = {name: len(entries) for name, entries in found.entries.items()}
    assert sizes == {
        "cifar10-linf": 99,
        "cifar10-l2": 21,
        "cifar10-corruptions": 23,
        "cifar100-linf": 38,
        "cifar100-corruptions": 13,
        "imagenet-linf": 30,
        "imagenet-corruptions": 12,
    }
    entries = [entry for there in found.entries.values() for entry in there]
    for entry in entries:
        assert entry.origin is not None
        assert entry.origin.fields == json.loads((root / entry.origin.file).read_text())
    assert sum(len(entry.origin.cells) for entry in entries if entry.origin) == 4320
