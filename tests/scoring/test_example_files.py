from __future__ import annotations

import csv
import importlib.util
import io
import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusteval.schema.errors import UsageError
from robusteval.scoring.example_files import to_example_frame, write_csv, write_examples, write_json

TABLE = {
    "example": ["a/0", 'b "quoted", with, commas', "=1+1"],
    "clean": [True, False, True],
    "step": [None, 7, 12],
    "margin": [0.1, None, -1e-9],
    "broken_by": [None, "clean", "pgd"],
    "nothing": [None, None, None],
}
texts = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


def as_csv(table) -> str:
    text = io.StringIO(newline="")
    write_csv(table, text)
    return text.getvalue()


def test_csv_writes_truth_values_numbers_and_nothing_where_unknown() -> None:
    lines = as_csv(TABLE).splitlines()
    assert lines[0] == "example,clean,step,margin,broken_by,nothing"
    assert lines[1] == "a/0,true,,0.1,,"
    assert lines[2] == '"b ""quoted"", with, commas",false,7,,clean,'


@pytest.mark.parametrize("text", ["=cmd()", "+1", "-1", "@SUM(A1)", "\t=1", "'=1"])
def test_no_text_of_a_csv_file_starts_a_formula(text) -> None:
    (_, row) = csv.reader(io.StringIO(as_csv({"example": [text], "step": [1]}), newline=""))
    assert row == ["'" + text, "1"]


@given(st.lists(texts, min_size=1, max_size=5))
def test_every_text_comes_back_from_csv_and_none_starts_a_formula(names) -> None:
    table = {"example": list(names), "step": [None] * len(names)}
    _, *rows = csv.reader(io.StringIO(as_csv(table), newline=""))
    assert [row[0].removeprefix("'") for row in rows] == names
    assert not any(row[0][:1] in tuple("=+-@\t\r\n") and row[0] for row in rows)


def test_json_holds_the_same_values() -> None:
    text = io.StringIO()
    write_json(TABLE, text)
    rows = zip(*TABLE.values(), strict=True)
    assert json.loads(text.getvalue()) == [dict(zip(TABLE, row, strict=True)) for row in rows]
    empty = io.StringIO()
    write_json({}, empty)
    assert json.loads(empty.getvalue()) == []


def test_files_hold_the_same_rows_in_each_form(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for ending in ("csv", "json", "parquet"):
        write_examples(TABLE, tmp_path / f"rows.{ending}")
    expected = to_example_frame(TABLE)
    stored = pd.read_parquet(tmp_path / "rows.parquet")
    assert stored.equals(expected)
    assert str(stored["step"].dtype) == "Int64"
    assert json.loads((tmp_path / "rows.json").read_text())[1]["step"] == 7
    assert pd.read_csv(tmp_path / "rows.csv")["margin"].tolist()[2] == -1e-9


def test_a_missing_library_an_unknown_ending_and_a_bad_folder_are_named_with_what_to_do(tmp_path, monkeypatch) -> None:
    with pytest.raises(UsageError, match=r"use \.csv, \.json, \.parquet"):
        write_examples(TABLE, tmp_path / "rows.xlsx")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_examples(TABLE, tmp_path / "file" / "rows.csv")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'robusteval\[parquet\]'"):
        write_examples(TABLE, tmp_path / "rows.parquet")
    assert not (tmp_path / "rows.parquet").exists()
