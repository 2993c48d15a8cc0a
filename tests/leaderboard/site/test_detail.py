"""What the page of a measured entry says beyond its columns: attacks, domains, severities, seeds, commands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robusteval.leaderboard.boards import Board
from robusteval.leaderboard.entries import Entry, encode_entry
from robusteval.leaderboard.shelf import Shelf
from robusteval.leaderboard.site.build import site_pages
from robusteval.leaderboard.site.detail import details, run_command
from robusteval.schema.cells import EvalCell
from robusteval.schema.records import Evaluation, result_digest
from robusteval.stats.intervals import wilson

MakeEntry = Callable[..., Entry]
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&</script>{{ 7*7 }}\u202e\x1b[2J"


def changed(entry: Entry, change: Callable[[dict[str, Any]], None]) -> Entry:
    """The entry with other records, whose keys and digests fit them."""
    content = json.loads(encode_entry(entry))["entry"]
    renamed = {}
    for record in content["records"]:
        change(record)
        cell = EvalCell.model_validate(record["cell"])
        renamed[record["cell_key"]] = record["cell_key"] = cell.key
        evaluation = Evaluation.model_validate_json(json.dumps(record["evaluation"]))
        record["result_digest"] = result_digest(cell.key, evaluation, None)
    for row in content["rows"]:
        row["cells"] = {role: renamed[key] for role, key in row["cells"].items()}
    return Entry.model_validate_json(json.dumps(content))


def in_domains(names: list[str]) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        n = record["cell"]["data"]["n"]
        record["evaluation"]["domains"] = [[name, n // len(names)] for name in names]

    return change


def bits_of(entry: Entry, seed: int, role: str, outcome: str) -> np.ndarray:
    row = next(row for row in entry.rows if row.seed == seed)
    record = next(record for record in entry.records if record.cell_key == row.cells[role])
    assert record.evaluation is not None
    return np.array(record.evaluation.outcomes[outcome].unpack())


def test_every_attack_stands_beside_clean_and_robust_for_every_seed(board: Board, make_entry: MakeEntry) -> None:
    entry = make_entry("one")
    sections = details(board, entry)
    assert [section["role"] for section in sections] == ["a_id", "r_id@0", "a_ood", "r_ood@0"]
    attacked = sections[1]
    assert attacked["outcomes"] == ["clean", "pgd", "robust"]
    assert [row["seed"] for row in attacked["rows"]] == ["seed 0", "seed 1"]
    for row in attacked["rows"]:
        right = bits_of(entry, int(row["seed"][-1]), "r_id@0", "pgd")
        low, high = wilson(int(right.sum()), right.size)
        assert row["cells"][1] == f"{100 * right.mean():.1f} ±{50 * (high - low):.1f}"
        assert (
            row["command"] == f"robusteval run synthetic --only label=one,{row['seed'].replace(' ', '=')},role=r_id@0"
        )


def test_corruptions_are_a_table_by_severity_with_their_mean(board: Board, make_entry: MakeEntry) -> None:
    entry = changed(make_entry("one"), in_domains(["fog-1", "fog-3", "snow-1", "snow-3"]))
    section = details(board, entry)[2]
    (grid,) = section["grids"]
    assert (grid["outcome"], grid["severities"]) == ("clean", ["1", "3"])
    both = np.mean([bits_of(entry, seed, "a_ood", "clean") for seed in (0, 1)], axis=0).reshape(4, 15).mean(axis=1)
    assert [row["name"] for row in grid["rows"]] == ["fog", "snow"]
    for row, (first, second) in zip(grid["rows"], both.reshape(2, 2), strict=True):
        assert row["cells"] == [f"{100 * first:.1f}", f"{100 * second:.1f}", f"{50 * (first + second):.1f}"]
    assert [row["name"] for row in section["domains"]] == ["fog-1", "fog-3", "snow-1", "snow-3"]


def test_plain_domains_have_no_severities(board: Board, make_entry: MakeEntry) -> None:
    entry = changed(make_entry("one"), in_domains(["art", "photo"]))
    assert all(section["grids"] == [] for section in details(board, entry))


def test_a_command_of_a_row_from_a_file_or_a_fold_can_be_typed(make_entry: MakeEntry) -> None:
    entry = make_entry("one")
    row = entry.rows[0]
    fold = row.model_copy(update={"fold": "real world"})
    assert run_command(entry, fold).endswith("--only 'label=one,seed=0,fold=real world'")
    given_model = row.model_copy(update={"train_key": None})
    assert run_command(entry, given_model, "r_id@0") == "robusteval eval MODEL --suite synthetic --cells r_id@0"


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.just(EVIL), st.text(min_size=1, max_size=60), st.from_regex(r"<[a-z]+ on[a-z]+=.{0,10}>")))
def test_foreign_text_in_a_record_never_becomes_markup(
    board: Board, shelf: Shelf, make_entry: MakeEntry, text: str
) -> None:
    text = text.encode("utf-8", "ignore").decode() or "x"

    def change(record: dict[str, Any]) -> None:
        in_domains([text])(record)
        flag = {"code": "f", "severity": "warning", "evidence": text, "next_step": text}
        record["evaluation"]["flags"] = [flag]
        record["provenance"]["device"] = record["provenance"]["git_commit"] = text
        record["cell"]["evaluator"]["params"] = {text: text}

    entry = changed(make_entry("evil"), change)
    shelf.path("evil").unlink(missing_ok=True)
    shelf.add(entry)
    for name, page in site_pages([shelf.folder], print):
        if name.endswith(".html"):
            words = page.decode()
            assert not re.search(r"<(img|iframe|object|embed|form)\b", words, re.IGNORECASE)
            assert not re.search(r"<[a-z0-9]+[^>]*\son[a-z]+\s*=", re.sub(r'"[^"]*"', '""', words), re.IGNORECASE)
            assert words.count("<script") == words.count("</script>") <= 3
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", words)
