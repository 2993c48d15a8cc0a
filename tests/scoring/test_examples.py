"""Rows of examples against numbers written down by hand."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import safetensors.numpy

from robusteval.evaluators import adversarial_report
from robusteval.schema.cells import DataSlice, EvalCell, WeightsStart
from robusteval.schema.digest import ids_digest
from robusteval.schema.errors import CorruptRecordError, UsageError
from robusteval.schema.records import Bits, Evaluation, Metric, Provenance, ResultRecord, Timing, result_digest
from robusteval.schema.types import Component, Epsilon, ThreatModel
from robusteval.scoring.examples import ATTACKED, example_columns, joined, worst_case

IDS = ("plain/0", "plain/1", "plain/2", "dim/0", "dim/1")
CE, SQUARE, PGD = "autoattack/apgd-ce", "autoattack/square", "pgd"
NAMES = (CE, SQUARE, PGD)
T, F = True, False
CASCADE = {"clean": [T, T, T, T, F], CE: [T, F, T, T, F], SQUARE: [T, F, F, T, F], PGD: [T, F, F, F, F]}
ALONE = {"clean": [T, T, T, T, F], CE: [T, F, T, T, F], SQUARE: [T, F, F, T, F], PGD: [T, T, F, F, F]}
NAN = float("nan")


def record_of(outcomes, cascade=True, **params) -> ResultRecord:
    data = DataSlice(
        dataset=Component(name="synthetic"),
        revision="1",
        domains=("plain", "dim"),
        split="test",
        n=5,
        ids_digest=ids_digest(IDS),
    )
    cell = EvalCell(
        model=WeightsStart(weights="0" * 64),
        data=data,
        evaluator=Component(name="adversarial", params={"cascade": cascade, **params}),
        protocol=1,
        threat=ThreatModel(epsilon=Epsilon("8/255")),
        seed=0,
    )
    robust = np.logical_and.reduce(list(outcomes.values())).tolist()
    found = Evaluation(
        metrics=(Metric(name="robust_accuracy", value=float(np.mean(robust)), n=5),),
        outcomes={name: Bits.pack(bits) for name, bits in {**outcomes, "robust": robust}.items()},
        domains=(("plain", 3), ("dim", 2)),
    )
    return ResultRecord(
        status="ok",
        cell_key=cell.key,
        cell=cell,
        evaluation=found,
        result_digest=result_digest(cell.key, found, None),
        provenance=Provenance(
            robusteval_version="0", packages={}, python="3", platform="test", device="cpu", threads=1
        ),
        timing=Timing(started_at="2025-01-01T00:00:00Z", wall_s=1.0),
    )


def sidecar_of(stages=NAMES, **changes) -> bytes:
    """What the cascade's attacks did; `pgd` gives no counts."""
    columns = {
        "label": np.array([0, 1, 2, 0, 1]),
        "prediction": np.array([0, 1, 2, 0, 2]),
        "run": np.array([[-1, 0, -1, -1, -1], [-1, -1, 3, -1, -1], [-1] * 5]),
        "step": np.array([[9, 4, 9, 9, -1], [30, -1, 17, 30, -1], [-1] * 5]),
        "forward": np.array([[10, 5, 10, 10, -1], [31, -1, 18, 31, -1], [-1] * 5]),
        "backward": np.array([[9, 4, 9, 9, -1], [0, -1, 0, 0, -1], [-1] * 5]),
        "margin": np.array([[2, -1, 3, 4, NAN], [2, NAN, -0.5, 4, NAN], [1.5, NAN, NAN, -2, NAN]], dtype=np.float32),
        "norm": np.array([[0, 0.03, 0, 0, NAN], [0, NAN, 0.02, 0, NAN], [0, NAN, NAN, 0.01, NAN]], dtype=np.float32),
        **changes,
    }
    return safetensors.numpy.save(columns, {"stages": json.dumps(list(stages))})


def rows(columns):
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_a_row_says_which_attack_broke_the_example_when_by_how_much_and_at_what_cost() -> None:
    found = rows(example_columns(record_of(CASCADE), IDS, None, sidecar_of()))
    assert [row["example"] for row in found] == list(IDS)
    assert [row["domain"] for row in found] == ["plain"] * 3 + ["dim"] * 2
    assert [row["broken_by"] for row in found] == [None, CE, SQUARE, PGD, "clean"]
    assert [row["robust"] for row in found] == [T, F, F, F, F]
    assert [(row["run"], row["step"]) for row in found] == [(None, None), (0, 4), (3, 17), (None, None), (None, None)]
    assert [row["margin"] for row in found] == [1.5, -1, -0.5, -2, None]
    assert [row["norm"] for row in found] == [None, 0.03, 0.02, 0.01, None]
    assert [row["forward"] for row in found] == [None, 5, 28, None, None]
    assert [row["backward"] for row in found] == [None, 4, 9, None, None]
    assert [row["label"] for row in found] == [0, 1, 2, 0, 1]
    assert [row["prediction"] for row in found] == [0, 1, 2, 0, 2]
    assert [row[f"stands/{SQUARE}"] for row in found] == CASCADE[SQUARE]
    assert {row["cell"] for row in found} == {record_of(CASCADE).cell_key}


def test_groups_are_the_ids_where_every_example_stands_alone() -> None:
    assert example_columns(record_of(CASCADE), IDS, None, None)["group"] == list(IDS)
    assert example_columns(record_of(CASCADE), IDS, list("aabbb"), None)["group"] == list("aabbb")


def test_without_a_sidecar_the_outcomes_still_say_who_broke_what() -> None:
    found = example_columns(record_of(CASCADE), IDS, None, None)
    assert found["broken_by"] == [None, CE, SQUARE, PGD, "clean"]
    assert found["margin"] == found["step"] == found["label"] == [None] * 5


def test_a_sidecar_without_labels_gives_those_of_the_examples_that_are_right() -> None:
    columns = safetensors.numpy.load(sidecar_of())
    del columns["label"]
    old = safetensors.numpy.save(columns, {"stages": json.dumps(NAMES)})
    assert example_columns(record_of(CASCADE), IDS, None, old)["label"] == [0, 1, 2, 0, None]


def test_a_clean_evaluation_has_rows_without_attacks() -> None:
    found = example_columns(record_of({"clean": CASCADE["clean"]}), IDS, None, None)
    assert list(found) == ["cell", "example", "group", "domain", "label", "prediction", "clean"]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_without_a_cascade_the_worst_case_over_any_subset_is_known(size) -> None:
    record = record_of(ALONE, cascade=False)
    for chosen in itertools.combinations([CE, PGD], min(size, 2)):
        expected = np.logical_and.reduce([ALONE["clean"], *(ALONE[name] for name in chosen)]).tolist()
        assert example_columns(record, IDS, None, None, chosen)["robust"] == expected
        assert worst_case(record, None, chosen).standing == sum(expected)
        assert worst_case(record, None, chosen).unknown == 0


def test_attacks_with_a_slash_in_their_name_are_no_ensemble() -> None:
    names = ("torchattacks/PGD", "torchattacks/FGSM")
    outcomes = {"clean": [T, T, T, T, F], names[0]: [T, F, T, T, F], names[1]: [T, T, F, T, F]}
    record = record_of(outcomes, cascade=False, attacks=[{"name": name, "params": {}} for name in names])
    assert worst_case(record, None, names[1:]).standing == 3
    assert worst_case(record, None, names[1:]).unknown == 0


def test_an_example_that_was_not_drawn_for_an_attack_is_open_under_it() -> None:
    record = record_of({**CASCADE, f"attacked/{SQUARE}": [F, F, T, T, F]})
    assert example_columns(record, IDS, None, None, [SQUARE])["robust"] == [None, None, F, T, F]
    assert example_columns(record, IDS, None, None, [CE])["robust"] == CASCADE[CE]


@pytest.mark.parametrize(
    ("chosen", "robust", "broken_by"),
    [
        ([CE], [T, F, T, T, F], [None, CE, None, None, "clean"]),
        ([CE, SQUARE], [T, F, F, T, F], [None, CE, SQUARE, None, "clean"]),
        ([SQUARE], [T, None, F, T, F], [None, None, SQUARE, None, "clean"]),
        ([SQUARE, PGD], [T, None, F, F, F], [None, None, SQUARE, PGD, "clean"]),
        ([PGD], [T, None, None, F, F], [None, None, None, PGD, "clean"]),
        ([PGD, CE], [T, F, None, F, F], [None, CE, None, PGD, "clean"]),
    ],
)
@pytest.mark.parametrize("sidecar", [None, sidecar_of()])
def test_in_a_cascade_the_worst_case_is_left_open_where_an_attack_was_not_run(
    chosen, robust, broken_by, sidecar
) -> None:
    record = record_of(CASCADE)
    found = example_columns(record, IDS, None, sidecar, chosen)
    assert found["robust"] == robust
    assert found["broken_by"] == broken_by
    worst = worst_case(record, sidecar, chosen)
    assert (worst.standing, worst.unknown) == (robust.count(True), robust.count(None))
    assert [name for name in found if name.startswith("stands/")] == [
        f"stands/{name}" for name in NAMES if name in chosen
    ]


def test_an_attack_that_ran_on_a_share_of_the_survivors_leaves_the_others_open() -> None:
    outcomes = {**CASCADE, f"attacked/{PGD}": [F, F, F, T, F]}
    record = record_of(CASCADE)
    assert record.evaluation is not None
    bits = {name: Bits.pack(values) for name, values in outcomes.items()}
    sampled = record.evaluation.model_copy(update={"outcomes": {**record.evaluation.outcomes, **bits}})
    record = record.model_copy(update={"evaluation": sampled})
    found = example_columns(record, IDS, None, None)
    assert found["robust"] == [None, F, F, F, F]
    assert not any(name.startswith("stands/attacked") for name in found)
    assert ATTACKED == adversarial_report.ATTACKED


def test_the_worst_case_is_said_with_its_interval_and_what_is_open() -> None:
    assert str(worst_case(record_of(CASCADE), None, [CE])).startswith(f"robust accuracy over {CE}: 60.0 % [")
    text = str(worst_case(record_of(CASCADE), None, [PGD]))
    assert "20.0 to 60.0 %" in text
    assert "2 examples are open" in text


def test_an_attack_that_the_record_does_not_have_is_named() -> None:
    with pytest.raises(UsageError, match="unknown attack of this record 'autoattack/squares'; did you mean"):
        example_columns(record_of(CASCADE), IDS, None, None, ["autoattack/squares"])


@pytest.mark.parametrize(
    "sidecar",
    [
        b"",
        b"\xff" * 40,
        sidecar_of()[:-9],
        sidecar_of(stages=["a", "b", "c"]),
        sidecar_of(margin=np.zeros((3, 4), dtype=np.float32)),
        sidecar_of(prediction=np.zeros(6, dtype=np.int64)),
        safetensors.numpy.save({"margin": np.zeros((3, 5))}, {"stages": "7"}),
        safetensors.numpy.save({"margin": np.zeros((3, 5))}),
    ],
)
def test_a_sidecar_that_is_damaged_or_of_another_record_is_refused(sidecar) -> None:
    with pytest.raises(CorruptRecordError):
        example_columns(record_of(CASCADE), IDS, None, sidecar)


def test_an_id_list_of_another_slice_is_refused() -> None:
    with pytest.raises(CorruptRecordError, match="names 4 of 5"):
        example_columns(record_of(CASCADE), IDS[:4], None, None)


def test_tables_of_several_records_stand_under_each_other_with_their_constants_first() -> None:
    attacked = example_columns(record_of(CASCADE), IDS, None, sidecar_of())
    clean = example_columns(record_of({"clean": CASCADE["clean"]}), IDS, None, None)
    table = joined([({"row": "erm", "seed": 0}, clean), ({"row": "aft", "seed": 1}, attacked)])
    assert list(table)[:2] == ["row", "seed"]
    assert list(table)[-3:] == [f"stands/{name}" for name in NAMES]
    assert table["row"] == ["erm"] * 5 + ["aft"] * 5
    assert table["robust"] == [None] * 5 + attacked["robust"]
    assert {len(values) for values in table.values()} == {10}
    assert joined([]) == {}
