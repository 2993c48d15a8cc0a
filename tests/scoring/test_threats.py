from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusteval.schema.errors import CorruptRecordError
from robusteval.schema.plans import RowSeed, StoredPlan, unseen_role
from robusteval.schema.threats import SpatialThreat
from robusteval.schema.types import Epsilon, Norm, ThreatModel
from robusteval.scoring.frames import attack_frame
from robusteval.scoring.notes import notes
from robusteval.scoring.outcomes import Outcomes
from robusteval.scoring.render import to_csv, to_json, to_markdown, to_plain_rows
from robusteval.scoring.results import SuiteTable
from robusteval.scoring.table import score
from robusteval.scoring.threats import distinct_names, in_common, mean_over_threats, overall, union
from robusteval.stats.intervals import average, wilson, wilson_clustered

BALLS = (ThreatModel(epsilon=Epsilon("0.1")), ThreatModel(norm=Norm.L2, epsilon=Epsilon(1)))
TURN = SpatialThreat(rotation=30, translation=0.1)
LARGER = ThreatModel(epsilon=Epsilon("0.2"))
N = 20


def outcomes(right: Any, seeds: tuple[int, ...] = (0,), domain: str = "upright") -> Outcomes:
    bits = np.atleast_2d(np.asarray(right))
    n = bits.shape[1]
    return Outcomes(seeds, bits, (domain,) * n, tuple(f"{domain}/{i}" for i in range(n)), False, "0" * 64)


def robust(first: int, last: int) -> list[bool]:
    return [first <= index < last for index in range(N)]


def world_of(make_world, threats: tuple[Any, ...], bits: dict[str, list[bool]]) -> Any:
    """One row with seed 0; `bits` gives the robust outcomes of each role on 20 examples, all right when clean."""
    world = make_world(threats=threats, ood_domains=("inverted",), clean_n=N, robust_n=N)
    train = world.train("erm", 0)
    clean = [True] * N
    cells = {side: world.measure(train, side[2:], {"clean": clean}) for side in ("a_id", "a_ood")}
    for role, stands in bits.items():
        column, _, index = role.partition("@")
        place = int(index) + (2 if column == "r_unseen" else 0)
        side = "ood" if column == "r_ood" else "id"
        cells[role] = world.measure(train, side, {"clean": clean, "pgd": stands, "robust": stands}, place)
    world.rows.append(RowSeed(label="erm", method="erm", seed=0, train_key=train, cells=cells))
    return world


BITS = {
    "r_id@0": robust(0, 14),
    "r_id@1": robust(8, 20),
    "r_ood@0": robust(0, 10),
    "r_ood@1": robust(0, 12),
}
UNSEEN = {"r_unseen@0": robust(0, 4), "r_unseen@1": robust(10, 20)}


def scored(make_world, bits: dict[str, list[bool]], **changes: Any) -> SuiteTable:
    world = world_of(make_world, (*BALLS, TURN, LARGER), bits)
    plan = world.plan(threats=BALLS, **changes)
    return score(plan, world.records, world.groups)


def test_the_union_counts_examples_that_survive_every_threat(make_world) -> None:
    (row,) = scored(make_world, BITS).rows
    assert row.union is not None
    assert row.union.r_id is not None
    assert row.union.r_ood is not None
    assert row.union.r_id.value == 6 / N
    assert (row.union.r_id.low, row.union.r_id.high) == pytest.approx(wilson(6, N))
    assert row.union.r_ood.value == 10 / N
    assert row.union.b_id is not None
    assert row.union.b_id.value == pytest.approx(1 - 6 / N)
    assert row.r_id is not None
    assert row.r_id.value == 14 / N


def test_one_threat_has_no_union_and_a_suite_may_do_without(make_world) -> None:
    assert scored(make_world, BITS, union=False).rows[0].union is None
    world = world_of(make_world, BALLS[:1], {"r_id@0": BITS["r_id@0"]})
    (row,) = score(world.plan(), world.records, world.groups).rows
    assert row.union is None


def test_a_union_with_a_missing_part_is_absent_not_guessed(make_world) -> None:
    world = world_of(make_world, BALLS, BITS)
    del world.records[world.rows[0].cells["r_id@1"]]
    (row,) = score(world.plan(), world.records, world.groups).rows
    assert row.union is not None
    assert row.union.r_id is None
    assert row.union.r_ood is not None
    assert not row.ranked


def test_unseen_threats_are_never_part_of_r_ood(make_world) -> None:
    (plain,) = scored(make_world, BITS).rows
    (row,) = scored(make_world, {**BITS, **UNSEEN}, unseen_threats=(TURN, LARGER)).rows
    assert row.r_ood == plain.r_ood
    assert row.r_id == plain.r_id
    assert plain.r_ood_threats is None
    assert plain.r_ood_overall is None
    assert {name: estimate.value for name, estimate in row.unseen.items()} == {str(TURN): 4 / N, str(LARGER): 10 / N}


def test_the_ood_threat_part_is_the_mean_over_threats_and_the_overall_one_the_mean_of_both_parts(make_world) -> None:
    (row,) = scored(make_world, {**BITS, **UNSEEN}, unseen_threats=(TURN, LARGER)).rows
    assert row.r_ood_threats is not None
    assert row.r_ood_overall is not None
    assert row.r_ood_threats.value == pytest.approx((4 + 10) / 2 / N)
    assert row.r_ood_threats.low < row.r_ood_threats.value < row.r_ood_threats.high
    assert row.r_ood is not None
    assert row.r_ood_overall.value == pytest.approx((row.r_ood.value + row.r_ood_threats.value) / 2)
    assert row.r_ood_overall.interval == "square-and-add"
    assert row.r_ood_overall.low < row.r_ood_overall.value < row.r_ood_overall.high


def test_a_mean_over_threats_of_which_one_was_not_run_is_absent(make_world) -> None:
    bits = {**BITS, "r_unseen@0": UNSEEN["r_unseen@0"]}
    (row,) = scored(make_world, bits, unseen_threats=(TURN, LARGER)).rows
    assert list(row.unseen) == [str(TURN)]
    assert row.r_ood_threats is None
    assert row.r_ood_overall is None


def test_every_form_of_the_table_has_the_columns(make_world) -> None:
    table = scored(make_world, {**BITS, **UNSEEN}, unseen_threats=(TURN, LARGER))
    header, rows = to_plain_rows(table)
    wanted = ["R_id l2-1", "R_ood l2-1", "R_id union", "R_ood union", "R_ood threats"]
    assert header[5:10] == wanted
    assert rows[0][7].startswith("30.0 ±")
    assert rows[0][9].startswith("35.0 ±")
    assert "| R_id union | R_ood union | R_ood threats |" in to_markdown(table)
    (line,) = csv.DictReader(io.StringIO(to_csv(table)))
    assert float(line["r_id_union"]) == 0.3
    assert float(line["r_ood_union"]) == 0.5
    assert float(line["r_ood_threats"]) == pytest.approx(0.35)
    assert float(line["r_ood_overall"]) == pytest.approx(0.425)
    assert float(line[f"r_unseen[{TURN}]"]) == 0.2
    (entry,) = to_json(table)
    assert entry["union"]["r_id"]["value"] == 0.3
    assert entry["unseen"][str(LARGER)]["value"] == 0.5
    text = "\n".join(notes(table))
    assert "union: examples that are robust under every one of linf-0.1, l2-1." in text
    assert f"unseen threats {TURN}, {LARGER}; not part of R_ood" in text


def test_a_suite_without_them_has_none_of_the_columns(world) -> None:
    table = score(world.plan(), world.records, world.groups)
    assert not any("union" in name or "threats" in name for name in to_plain_rows(table)[0])
    assert not any("union" in name or "unseen" in name for name in to_csv(table).splitlines()[0].split(","))


def test_single_attacks_of_unseen_threats_are_in_the_frame(make_world) -> None:
    world = world_of(make_world, (*BALLS, TURN, LARGER), {**BITS, **UNSEEN})
    plan = world.plan(threats=BALLS, unseen_threats=(TURN, LARGER))
    frame = attack_frame(plan, world.records, world.groups)
    found = frame[(frame.side == "unseen") & (frame.attack == "pgd")]
    assert dict(zip(found.threat, found.value, strict=True)) == {str(TURN): 0.2, str(LARGER): 0.5}


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4))
def test_the_union_is_at_most_the_worst_threat_and_in_any_order_the_same(rows: list[list[bool]]) -> None:
    parts = [outcomes(row) for row in rows]
    together = union(parts)
    assert together.mean().value <= min(part.mean().value for part in parts)
    assert np.array_equal(together.right, union(parts[::-1]).right)
    assert together.mean().value <= mean_over_threats(parts).mean().value + 1e-12


def test_only_training_seeds_that_every_threat_has_are_counted() -> None:
    first = outcomes([[True, True], [True, False]], (0, 1))
    second = outcomes([[False, True], [False, False]], (1, 2))
    parts = in_common([first, second], "x")
    assert [part.seeds for part in parts] == [(1,), (1,)]
    assert union(parts).right.tolist() == [[False, False]]
    assert in_common([first, None], "x") == []
    assert in_common([], "x") == []
    assert in_common([outcomes([True], (0,)), outcomes([True], (1,))], "x") == []


def test_threats_measured_on_other_examples_are_an_error() -> None:
    with pytest.raises(CorruptRecordError, match="erm: the records of its threats are about different examples"):
        in_common([outcomes([True, True]), outcomes([True, True], domain="rotated")], "erm")


def test_the_interval_over_seeds_of_the_overall_number_is_that_of_its_seeds() -> None:
    shifted = outcomes([[True, False], [True, True]], (0, 1), domain="fog")
    unseen = outcomes([[0.5, 0.0], [0.5, 1.0]], (1, 2))
    found = overall(shifted, unseen)
    assert found is not None
    assert found.seeds == {1: (1.0 + 0.25) / 2}
    assert overall(shifted, None) is None
    assert overall(outcomes([True], (0,)), outcomes([True], (1,))) is None


def test_an_average_of_independent_estimates_is_narrower_than_each_and_of_one_with_itself_the_same() -> None:
    left = wilson_clustered([1.0] * 30 + [0.0] * 30, [f"a{i}" for i in range(60)])
    right = wilson_clustered([1.0] * 30 + [0.0] * 30, [f"b{i}" for i in range(60)])
    both, same = average(left, right), average(left, left)
    assert both.value == pytest.approx(0.5)
    assert both.high - both.low == pytest.approx((left.high - left.low) / np.sqrt(2))
    assert (same.value, same.low, same.high) == pytest.approx((left.value, left.low, left.high))


def test_equal_threats_have_distinct_names() -> None:
    assert distinct_names([TURN, LARGER, TURN]) == (str(TURN), str(LARGER), f"{TURN}#2")


def test_a_role_leads_to_its_threat_and_must_exist(make_world) -> None:
    world = world_of(make_world, (*BALLS, TURN, LARGER), {**BITS, **UNSEEN})
    plan: StoredPlan = world.plan(threats=BALLS, unseen_threats=(TURN, LARGER))
    assert plan.threat_of(unseen_role(0)) == TURN
    assert plan.threat_of("r_ood@1") == BALLS[1]
    assert plan.threat_of("a_id") is None
    with pytest.raises(ValueError, match="role 'r_unseen@1' but the plan has 1 unseen threats"):
        world.plan(threats=BALLS, unseen_threats=(TURN,))
