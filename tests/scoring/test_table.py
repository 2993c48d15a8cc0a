from __future__ import annotations

import numpy as np
import pytest

from robusteval.schema.cells import WeightsStart
from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import CorruptRecordError, UsageError
from robusteval.schema.plans import RowSeed, role_of
from robusteval.schema.records import Flag
from robusteval.schema.specs import CELLS
from robusteval.schema.types import Epsilon, Norm, ThreatModel
from robusteval.scoring.table import front_rows, score
from robusteval.stats.intervals import wilson, wilson_clustered

FLAG = Flag(code="black-box-beats-white-box", severity="warning", evidence="1 of 20", next_step="look")


def by_name(table):
    return {row.method: row for row in table.rows}


def test_values_are_means_over_seeds_of_the_stored_bits(world):
    table = score(world.plan(), world.records, world.groups)
    for label in ("erm", "pgd-at", "weak"):
        row = by_name(table)[label]
        for column in CELLS:
            name = "clean" if column.startswith("a_") else "robust"
            per_seed = [
                np.mean(world.records[seed.cells[role_of(column)]].evaluation.outcomes[name].unpack())
                for seed in world.plan().row(label)
            ]
            estimate = row.column(column)
            assert estimate.value == pytest.approx(np.mean(per_seed))
            assert list(estimate.seeds.values()) == pytest.approx(per_seed)
            assert 0.0 <= estimate.low <= estimate.value <= estimate.high <= 1.0


def test_values_agree_with_the_metrics_in_the_records(world):
    table = score(world.plan(), world.records, world.groups)
    seed = world.plan().row("pgd-at")[0]
    metrics = {metric.name: metric.value for metric in world.records[seed.cells["r_ood@0"]].evaluation.metrics}
    assert by_name(table)["pgd-at"].r_ood.seeds[0] == pytest.approx(metrics["accuracy/robust"])


def test_both_intervals_are_named(world):
    row = score(world.plan(), world.records, world.groups).rows[0]
    assert (row.a_id.interval, row.a_id.seed_interval) == ("wilson", "student-t")
    assert row.a_ood.interval == "wilson-clustered"
    assert row.a_id.n == 40
    assert row.a_ood.n == 80


def test_examples_of_one_source_image_are_clustered_across_domains(world):
    plan = world.plan()
    clustered = by_name(score(plan, world.records, world.groups))["pgd-at"].a_ood
    alone = by_name(score(plan, world.records))["pgd-at"].a_ood
    # The two domains are right on the same sources, so 80 examples say no more than 40.
    assert clustered.n_effective == pytest.approx(40, rel=0.05)
    assert alone.n_effective == pytest.approx(80, rel=0.05)
    assert alone.interval == "wilson"
    assert clustered.high - clustered.low > alone.high - alone.low


def test_one_seed_has_the_plain_wilson_interval_and_none_over_seeds(make_world):
    world = make_world()
    world.row("erm", (0.95, 0.05, 0.6, 0.0), seeds=(3,))
    row = score(world.plan(), world.records, world.groups).rows[0]
    assert (row.a_id.low, row.a_id.high) == pytest.approx(wilson(38, 40))
    assert row.a_id.seeds == {3: 0.95}
    assert row.a_id.seed_low is row.a_id.seed_high is row.a_id.seed_interval is row.a_id.seed_half_width is None


def test_interval_over_seeds_is_student_t(make_world):
    world = make_world()
    for seed, accuracy in enumerate((0.5, 0.6, 0.7)):
        world.row("erm", (accuracy, 0.2, 0.4, 0.1), seeds=(seed,))
    a_id = score(world.plan(), world.records).rows[0].a_id
    assert a_id.value == pytest.approx(0.6)
    # t quantile with two degrees of freedom, 4.3027, times 0.1 / sqrt(3)
    assert a_id.seed_half_width == pytest.approx(4.30265 * 0.1 / np.sqrt(3), rel=1e-5)
    assert (a_id.seed_low, a_id.seed_high) == pytest.approx((0.6 - a_id.seed_half_width, 0.6 + a_id.seed_half_width))


def test_columns_under_shift_are_macro_means(make_world):
    world = make_world(ood_domains=("easy", "hard"))
    key = world.train("erm", 0)
    bits = [True] * 40 + [True] * 10 + [False] * 30
    cells = {"a_ood": world.measure(key, "ood", {"clean": bits})}
    world.rows.append(RowSeed(label="erm", method="erm", seed=0, train_key=key, cells=cells))
    row = score(world.plan(), world.records, world.groups).rows[0]
    assert row.a_ood.value == pytest.approx((1.0 + 0.25) / 2)
    assert {entry.domain: entry.clean.value for entry in row.domains} == {"easy": 1.0, "hard": 0.25}
    assert row.worst["a_ood"].domain == "hard"
    assert row.worst["a_ood"].value == 0.25


def test_gaps_are_differences_on_the_same_examples(world):
    row = by_name(score(world.plan(), world.records, world.groups))["pgd-at"]
    seeds = world.plan().row("pgd-at")
    attacked = [world.records[seed.cells["r_id@0"]].evaluation.outcomes for seed in seeds]
    clean = np.mean([outcomes["clean"].unpack() for outcomes in attacked])
    robust = np.mean([outcomes["robust"].unpack() for outcomes in attacked])
    assert row.gaps.b_id.value == pytest.approx(clean - robust)
    assert row.gaps.b_id.n == 20
    assert row.gaps.g_clean.value == pytest.approx(row.a_id.value - row.a_ood.value)
    assert row.gaps.g_adv.value == pytest.approx(row.r_id.value - row.r_ood.value)
    assert row.gaps.interaction.value == pytest.approx(row.gaps.b_id.value - row.gaps.b_ood.value)
    for _, gap in row.gaps:
        assert gap.low <= gap.value <= gap.high


def test_an_example_that_is_wrong_when_clean_is_never_robust(make_world):
    world = make_world()
    key = world.train("erm", 0)
    outcomes = {"clean": [True] * 10 + [False] * 10, "robust": [True] * 15 + [False] * 5}
    cells = {"r_id@0": world.measure(key, "id", outcomes, 0)}
    world.rows.append(RowSeed(label="erm", method="erm", seed=0, train_key=key, cells=cells))
    row = score(world.plan(), world.records).rows[0]
    assert row.r_id.value == 0.5
    assert row.gaps.b_id.value == 0.0


def test_costs_are_per_training_example_and_the_start_is_separate(make_world):
    world = make_world()
    world.row("pgd-at", (0.9, 0.7, 0.6, 0.4))
    world.row("rift", (0.9, 0.7, 0.6, 0.4), start="pgd-at")
    world.row("twice", (0.9, 0.7, 0.6, 0.4), start="rift")
    rows = by_name(score(world.plan(), world.records))
    assert rows["pgd-at"].train_passes_per_example == pytest.approx(45.0)
    assert rows["pgd-at"].start_passes_per_example == 0.0
    assert rows["rift"].start_passes_per_example == pytest.approx(45.0)
    assert rows["twice"].start_passes_per_example == pytest.approx(90.0)
    assert rows["twice"].selection_passes_per_example == pytest.approx(2.0)
    assert rows["twice"].train_wall_s == pytest.approx(12.0)


def test_cost_of_a_given_start_is_unknown_not_zero(make_world):
    world = make_world()
    key = world.train("rift", 0, weights=WeightsStart(weights=sha256_hex(b"weights")))
    bits = [True] * 40
    cells = {"a_id": world.measure(key, "id", {"clean": bits})}
    world.rows.append(RowSeed(label="rift", method="rift", seed=0, train_key=key, cells=cells))
    row = score(world.plan(), world.records).rows[0]
    assert row.start_passes_per_example is None
    assert row.train_passes_per_example == pytest.approx(40.0)


def test_a_model_given_as_a_file_has_no_cost_and_is_complete(make_world):
    world = make_world()
    world.row("file", (0.9, 0.7, 0.6, 0.4), seeds=(0,))
    world.rows[0] = world.rows[0].model_copy(update={"train_key": None})
    row = score(world.plan(), world.records).rows[0]
    assert row.train_passes_per_example is row.train_wall_s is None
    assert row.ranked
    assert row.pareto


def test_a_failed_cell_leaves_the_row_unranked_and_says_why(world):
    failed = world.eval_cell(world.rows[2].train_key, "ood", 0)
    world.fail(failed)
    table = score(world.plan(), world.records, world.groups)
    row = by_name(table)["pgd-at"]
    assert not row.ranked
    assert not row.pareto
    assert [(cell.seed, cell.role, cell.state, cell.cell) for cell in row.missing] == [
        (0, "r_ood@0", "failed", failed.key)
    ]
    assert row.missing[0].reason == "CellError: the attack left the box"
    assert list(row.r_ood.seeds) == [1]
    # Without the row that dominated it, `weak` is on the front.
    assert by_name(table)["weak"].pareto


def test_a_column_without_any_result_is_absent_not_zero(world):
    for row in world.rows[:2]:
        del world.records[row.cells["r_id@0"]]
    row = by_name(score(world.plan(), world.records))["erm"]
    assert row.r_id is None
    assert row.gaps.b_id is None
    assert row.gaps.interaction is None
    assert {cell.state for cell in row.missing} == {"not run"}
    assert not row.pareto


def test_failed_training_is_named_with_what_depends_on_it(world):
    row = world.rows[0]
    world.fail(world.records[row.train_key].cell)
    for key in row.cells.values():
        del world.records[key]
    missing = by_name(score(world.plan(), world.records))["erm"].missing
    assert (missing[0].role, missing[0].state) == ("train", "failed")
    assert len(missing) == 5


def test_front_marks_what_nothing_dominates(world):
    rows = by_name(score(world.plan(), world.records))
    assert {name for name, row in rows.items() if row.pareto} == {"erm", "pgd-at"}


def test_equal_rows_share_the_front(make_world):
    world = make_world()
    world.row("first", (0.9, 0.5, 0.6, 0.3))
    world.row("second", (0.9, 0.5, 0.6, 0.3))
    assert [row.pareto for row in score(world.plan(), world.records).rows] == [True, True]


def test_front_can_be_taken_over_any_columns(world):
    table = score(world.plan(pareto=("a_id",)), world.records)
    assert [row.method for row in table.rows if row.pareto] == ["erm"]
    assert front_rows(table, ("r_id", "train_passes_per_example")) == ["pgd-at"]
    with pytest.raises(UsageError, match="did you mean 'a_ood'"):
        front_rows(table, ("a_odd",))


def test_a_second_threat_is_scored_beside_the_first(make_world):
    threats = (
        ThreatModel(epsilon=Epsilon("0.1")),
        ThreatModel(norm=Norm.L2, epsilon=Epsilon("1")),
        ThreatModel(epsilon=Epsilon("0.1")),
    )
    world = make_world(threats=threats)
    world.row("pgd-at", (0.9, 0.8, 0.6, 0.4))
    table = score(world.plan(), world.records, world.groups)
    assert table.threats == ("linf-0.1", "l2-1", "linf-0.1#2")
    row = table.rows[0]
    assert list(row.threats) == ["l2-1", "linf-0.1#2"]
    assert row.r_id.value == pytest.approx(0.8)
    assert row.threats["l2-1"].r_id.value == pytest.approx(0.4)
    assert row.threats["linf-0.1#2"].r_ood.value == pytest.approx(0.1)
    assert row.threats["l2-1"].b_id.value == pytest.approx(0.5)


def test_a_suite_without_shifted_data_has_two_columns_and_a_front(make_world):
    world = make_world(ood_domains=())
    world.row("erm", (0.9, 0.0, 0.0, 0.0))
    table = score(world.plan(), world.records)
    assert table.pareto == ("a_id", "r_id")
    assert table.rows[0].a_ood is None
    assert table.rows[0].missing == ()
    assert table.rows[0].pareto


def test_flags_of_any_cell_reach_the_row_once(make_world):
    world = make_world()
    world.row("erm", (0.9, 0.5, 0.6, 0.3), flags=(FLAG, FLAG))
    assert score(world.plan(), world.records).rows[0].flags == ("black-box-beats-white-box",)


def test_rows_are_compared_with_the_baseline_on_the_same_examples(world):
    rows = by_name(score(world.plan(baseline="erm"), world.records, world.groups))
    assert rows["erm"].comparisons == {}
    found = rows["pgd-at"].comparisons["r_id"]
    assert (found.base, found.candidate, found.n, found.seeds) == ("erm", "pgd-at", 20, (0, 1))
    assert found.difference.value == pytest.approx(rows["pgd-at"].r_id.value - rows["erm"].r_id.value)
    assert found.verdict == "better"
    assert found.p <= found.p_holm
    assert rows["pgd-at"].comparisons["a_id"].verdict == "not separable"


def test_groups_that_do_not_fit_the_slice_are_an_error(world):
    with pytest.raises(CorruptRecordError, match="names 1 groups for 40 examples"):
        score(world.plan(), world.records, lambda digest: ["a"])


def test_a_record_without_the_outcome_is_an_error(make_world):
    world = make_world()
    key = world.train("erm", 0)
    cells = {"r_id@0": world.measure(key, "id", {"clean": [True] * 20}, 0)}
    world.rows.append(RowSeed(label="erm", method="erm", seed=0, train_key=key, cells=cells))
    with pytest.raises(CorruptRecordError, match="has no outcome 'robust'; it has clean"):
        score(world.plan(), world.records)


def test_a_training_record_in_the_place_of_an_evaluation_is_an_error(make_world):
    world = make_world()
    key = world.train("erm", 0)
    world.rows.append(RowSeed(label="erm", method="erm", seed=0, train_key=key, cells={"a_id": key}))
    with pytest.raises(CorruptRecordError, match="no evaluation but a train record"):
        score(world.plan(), world.records)


def test_seeds_of_a_row_on_different_examples_are_an_error(make_world):
    world = make_world()
    world.row("erm", (0.9, 0.5, 0.6, 0.3), seeds=(0,))
    world.clean_n = 30
    world.row("erm", (0.9, 0.5, 0.6, 0.3), seeds=(1,))
    with pytest.raises(CorruptRecordError, match="different examples"):
        score(world.plan(), world.records)


def test_the_estimate_is_the_clustered_one_of_the_seed_means(world):
    row = by_name(score(world.plan(), world.records, world.groups))["pgd-at"]
    records = [world.records[seed.cells["a_ood"]] for seed in world.plan().row("pgd-at")]
    means = np.mean([record.evaluation.outcomes["clean"].unpack() for record in records], axis=0)
    sources = world.groups(records[0].cell.data.ids_digest)
    expected = wilson_clustered(means, sources, strata=["rotated"] * 40 + ["inverted"] * 40)
    assert (row.a_ood.low, row.a_ood.high, row.a_ood.n_effective) == pytest.approx(
        (expected.low, expected.high, expected.n_effective)
    )
