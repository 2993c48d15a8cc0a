from __future__ import annotations

import csv
import io
import json

import pytest

from robusteval.schema.types import Epsilon, ThreatModel
from robusteval.scoring.notes import notes
from robusteval.scoring.render import comparison_rows, to_csv, to_json, to_markdown, to_plain_rows
from robusteval.scoring.table import score


@pytest.fixture
def table(world):
    return score(world.plan(), world.records, world.groups)


@pytest.fixture
def broken(world):
    world.fail(world.eval_cell(world.rows[2].train_key, "id", 0))
    world.fail(world.eval_cell(world.rows[3].train_key, "id", 0))
    return score(world.plan(), world.records, world.groups)


def test_json_is_a_list_of_objects_with_the_promised_keys(table):
    objects = json.loads(json.dumps(to_json(table), allow_nan=False))
    assert [item["method"] for item in objects] == ["erm", "pgd-at", "weak"]
    for item in objects:
        for column in ("a_id", "r_id", "a_ood", "r_ood"):
            assert {"value", "low", "high", "n"} <= set(item[column])
            assert 0 <= item[column]["low"] <= item[column]["value"] <= item[column]["high"] <= 1
        assert isinstance(item["pareto"], bool)
        assert item["train_passes_per_example"] == pytest.approx(45.0)
        extras = {"start_passes_per_example", "train_wall_s", "gaps", "domains", "flags", "missing", "threats"}
        assert extras <= set(item)


def test_json_of_a_missing_column_is_null_and_the_row_not_on_the_front(broken):
    item = to_json(broken)[1]
    assert item["r_id"] is None
    assert item["pareto"] is False
    assert item["ranked"] is False
    assert [cell["role"] for cell in item["missing"]] == ["r_id@0", "r_id@0"]


def test_csv_holds_the_full_values_and_leaves_absent_ones_empty(broken):
    rows = list(csv.DictReader(io.StringIO(to_csv(broken))))
    assert float(rows[0]["a_id"]) == broken.rows[0].a_id.value
    assert float(rows[0]["a_ood_low"]) == broken.rows[0].a_ood.low
    assert rows[1]["r_id"] == rows[1]["b_id"] == ""
    assert "failed (CellError: the attack left the box)" in rows[1]["missing"]
    assert rows[0]["a_id_interval"] == "wilson"


def test_plain_cells_are_percent_with_half_intervals_over_examples_and_seeds(table):
    header, rows = to_plain_rows(table)
    assert header == [
        "method", "A_id", "R_id", "A_ood", "R_ood", "passes/example", "start passes", "train s", "Pareto",
    ]  # fmt: skip
    erm = rows[0]
    a_id = table.rows[0].a_id
    assert erm[1] == f"95.0 ±{50 * (a_id.high - a_id.low):.1f} (±0.0)"
    assert [row[-1] for row in rows] == ["*", "*", ""]
    assert rows[1][5:8] == ["45.0", "0.0", "12.0"]


def test_plain_cells_say_what_is_missing(broken):
    _, rows = to_plain_rows(broken)
    assert rows[1][2] == "-"
    assert rows[1][-1] == "unranked"
    assert any(line.startswith("pgd-at: not ranked, missing r_id@0 of seed 0 failed") for line in notes(broken))


def test_notes_name_both_intervals_the_threat_and_the_counts(table):
    text = "\n".join(notes(table))
    assert "Wilson interval over examples, at the effective sample size" in text
    assert "t interval over 2 training seeds" in text
    assert "R under linf-0.1" in text
    assert "A_id 40, R_id 20, A_ood 80, R_ood 40" in text


def test_notes_with_one_seed_promise_no_interval_over_seeds(make_world):
    world = make_world()
    world.row("erm", (0.9, 0.5, 0.6, 0.3), seeds=(0,))
    table = score(world.plan(), world.records)
    assert "one training seed, so no interval over seeds" in "\n".join(notes(table))
    assert "(" not in to_plain_rows(table)[1][0][1]


def test_markdown_is_a_table_of_equal_width_rows_with_notes(table):
    lines = to_markdown(table).splitlines()
    widths = {line.count("|") for line in lines if line.startswith("|")}
    assert widths == {10}
    assert sum(line.startswith("- ") for line in lines) == len(notes(table))


def test_further_threats_get_their_own_columns(make_world):
    world = make_world(threats=(ThreatModel(epsilon=Epsilon("0.1")), ThreatModel(epsilon=Epsilon("0.2"))))
    world.row("pgd-at", (0.9, 0.8, 0.6, 0.4))
    table = score(world.plan(), world.records)
    header, rows = to_plain_rows(table)
    assert header[5:7] == ["R_id linf-0.2", "R_ood linf-0.2"]
    assert rows[0][5].startswith("40.0 ±")
    assert "r_id[linf-0.2]" in to_csv(table).splitlines()[0].split(",")


def test_a_suite_without_shifted_data_prints_two_accuracies(make_world):
    world = make_world(ood_domains=())
    world.row("erm", (0.9, 0.0, 0.0, 0.0))
    table = score(world.plan(), world.records)
    assert to_plain_rows(table)[0][1:3] == ["A_id", "R_id"]
    assert "A_ood" not in to_plain_rows(table)[0]
    assert to_json(table)[0]["a_ood"] is None


def test_comparisons_print_difference_counts_and_verdict(table):
    header, rows = comparison_rows(table)
    assert len(rows) == 8
    found = dict(zip(header, rows[1], strict=True))
    assert found["method"] == "pgd-at"
    assert found["column"] == "R_id"
    assert found["difference"].startswith("+65.0 [")
    assert found["verdict"] == "better"


def test_rows_that_never_ran_take_one_line_and_one_seed_of_two_is_not_called_one_seed(world):
    plan = world.plan()
    keep = next(row for row in plan.rows if row.label == "erm" and row.seed == 0)
    kept = {keep.train_key, *keep.cells.values()}
    for key in set(world.records) - kept:
        del world.records[key]
    found = notes(score(plan, world.records, world.groups))
    assert "Not run yet: pgd-at, weak (2 rows)." in found
    assert "erm: not ranked, missing seed 1 (not run)." in found
    text = "\n".join(found)
    assert "of 2 training seeds fewer than two have results" in text
    assert "one training seed" not in text


def test_a_suite_of_one_seed_says_so(world):
    plan = world.plan()
    plan = plan.model_copy(update={"rows": tuple(row for row in plan.rows if row.seed == 0)})
    assert "one training seed, so no interval over seeds" in "\n".join(notes(score(plan, world.records, world.groups)))
