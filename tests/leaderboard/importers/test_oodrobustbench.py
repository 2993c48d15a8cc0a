from __future__ import annotations

import csv
from pathlib import Path

import pytest

from robusteval.leaderboard.importers.oodrobustbench import import_oodrobustbench

HEADER = (
    "dataset,threat,title,link,id_clean,id_robust,ood_robust,ood_dataset_clean,ood_dataset_robust,ood_threat_robust,"
    "extra_data,architecture,venue\n"
)
ROW = 'cifar10,Linf,"A, B",https://arxiv.org/abs/2301.00001,95.23,69.50,45.01,79.09,43.32,46.71,true,WRN,V 2031\n'


def test_a_row_becomes_an_entry_with_all_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(HEADER + ROW + ROW.replace("95.23", "95.24"))
    found = import_oodrobustbench(path)
    assert found.problems == []
    first, second = found.entries["oodrobustbench-cifar10-linf"]
    assert (first.id, second.id) == ("2301.00001_WRN", "2301.00001_WRN.2")
    assert {key: value.value for key, value in first.columns.items()} == {
        "a_id": 0.9523,
        "r_id": 0.695,
        "r_ood_mean": 0.4501,
        "a_ood": 0.7909,
        "r_ood": 0.4332,
        "r_unseen": 0.4671,
    }
    assert first.claims.extra_data is True
    assert first.origin is not None
    assert first.origin.fields == next(csv.DictReader((HEADER + ROW).splitlines()))
    assert all(value.low is None for value in first.columns.values())


def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(HEADER + ROW + ROW.replace("43.32", "n/a?") + "a,b\n" + ROW.replace("WRN", "RN"))
    found = import_oodrobustbench(path)
    assert len(found.entries["oodrobustbench-cifar10-linf"]) == 2
    assert [line.split(": ")[0] for line in found.problems] == [f"{path}:3", f"{path}:4"]
    assert "ood_dataset_robust: 'n/a?' is not a number" in found.problems[0]
    assert "another number of fields" in found.problems[1]


def test_a_file_without_the_columns_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    assert "has no column 'dataset'" in import_oodrobustbench(tmp_path).problems[0]
    (tmp_path / "x.csv").unlink()
    assert import_oodrobustbench(tmp_path).problems == [f"{tmp_path}: holds no .csv file"]
    assert "No such file" in import_oodrobustbench(tmp_path / "absent.csv").problems[0]


@pytest.mark.shared
def test_all_published_rows_come_in(shared: Path) -> None:
    found = import_oodrobustbench(shared / "data" / "results" / "oodrobustbench.csv")
    assert found.problems == []
    assert {name: len(entries) for name, entries in found.entries.items()} == {
        "oodrobustbench-cifar10-linf": 65,
        "oodrobustbench-cifar10-l2": 18,
        "oodrobustbench-imagenet-linf": 18,
    }
    for entries in found.entries.values():
        for entry in entries:
            parts = entry.columns["r_ood"].value + entry.columns["r_unseen"].value
            assert entry.columns["r_ood_mean"].value == pytest.approx(parts / 2, abs=0.0002)
