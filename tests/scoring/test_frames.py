from __future__ import annotations

import pytest

from robusteval.scoring.frames import attack_frame, domain_frame, to_frame
from robusteval.scoring.table import score


def test_frame_has_one_row_a_method_and_the_tables_numbers(world):
    table = score(world.plan(), world.records, world.groups)
    frame = to_frame(table)
    assert list(frame.index) == ["erm", "pgd-at", "weak"]
    assert frame.loc["pgd-at", "r_ood"] == table.rows[1].r_ood.value
    assert frame.loc["pgd-at", "a_id_n"] == 40
    assert frame["pareto"].tolist() == [True, True, False]


def test_missing_numbers_are_missing_in_the_frame(world):
    for row in world.rows[:2]:
        del world.records[row.cells["a_ood"]]
    frame = to_frame(score(world.plan(), world.records))
    assert frame["a_ood"].isna().tolist() == [True, False, False]


def test_domain_frame_averages_to_the_column(world):
    table = score(world.plan(), world.records, world.groups)
    frame = domain_frame(table)
    part = frame[(frame["method"] == "pgd-at") & (frame["side"] == "ood") & (frame["kind"] == "robust")]
    assert part["domain"].tolist() == ["rotated", "inverted"]
    assert part["value"].mean() == pytest.approx(table.rows[1].r_ood.value)
    assert part["n"].tolist() == [20, 20]


def test_attack_frame_gives_every_attack_alone(world):
    frame = attack_frame(world.plan(), world.records, world.groups)
    part = frame[(frame["method"] == "pgd-at") & (frame["side"] == "id")].set_index("attack")["value"]
    assert set(part.index) == {"clean", "fgsm", "pgd", "robust"}
    assert part["robust"] == part["pgd"] == pytest.approx(0.7)
    assert part["fgsm"] == part["clean"] == pytest.approx(0.9)
    assert set(frame["threat"]) == {"linf-0.1"}
    assert (frame["seeds"] == 2).all()


def test_attack_frame_of_a_run_without_results_is_empty_with_its_columns(world):
    frame = attack_frame(world.plan(), {})
    assert len(frame) == 0
    assert "attack" in frame.columns
