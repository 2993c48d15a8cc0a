from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from robusteval.schema.cells import CellStart, DataSlice, EvalCell
from robusteval.schema.digest import sha256_hex
from robusteval.schema.records import (
    Bits,
    Evaluation,
    Failure,
    Metric,
    Provenance,
    ResultRecord,
    Timing,
    result_digest,
)
from robusteval.schema.types import Component

D = sha256_hex(b"x")
CELL = EvalCell(
    model=CellStart(cell=D),
    data=DataSlice(
        dataset=Component(name="digits"), revision="1", domains=("upright",), split="test", n=2, ids_digest=D
    ),
    evaluator=Component(name="clean"),
    protocol=1,
    seed=0,
)
PROVENANCE = Provenance(robusteval_version="0", packages={}, python="3.11", platform="x", device="cpu", threads=1)
TIMING = Timing(started_at="2026-01-01T00:00:00+00:00", wall_s=1.0)


def evaluation(value: float = 0.5) -> Evaluation:
    return Evaluation(
        metrics=(Metric(name="accuracy", value=value, n=2),),
        outcomes={"clean": Bits.pack([True, False])},
        domains=(("upright", 2),),
    )


def record(**changes: Any) -> ResultRecord:
    found = changes.get("evaluation", evaluation())
    base: dict[str, Any] = {
        "status": "ok",
        "cell_key": CELL.key,
        "cell": CELL,
        "evaluation": found,
        "result_digest": result_digest(CELL.key, found, None),
        "provenance": PROVENANCE,
        "timing": TIMING,
    }
    return ResultRecord(**(base | changes))


def test_a_record_survives_json() -> None:
    assert ResultRecord.model_validate_json(record().model_dump_json()) == record()


def test_where_and_when_are_not_part_of_what_was_found() -> None:
    other = record(timing=Timing(started_at="2027-01-01T00:00:00+00:00", wall_s=9.0))
    assert other.result_digest == record().result_digest


def test_a_change_of_one_outcome_or_metric_changes_the_digest() -> None:
    flipped = evaluation().model_copy(update={"outcomes": {"clean": Bits.pack([True, True])}})
    digests = {result_digest(CELL.key, found, None) for found in (evaluation(), evaluation(0.500001), flipped)}
    assert len(digests) == 3


def test_a_last_bit_of_a_mean_does_not_change_the_digest() -> None:
    assert result_digest(CELL.key, evaluation(0.5), None) == result_digest(CELL.key, evaluation(0.5 + 1e-12), None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cell_key": D}, "is not the key of the cell"),
        ({"result_digest": D}, "is not the digest of the result"),
        ({"evaluation": None}, "eval result is missing"),
        ({"failure": Failure(type="E", message="m", traceback="t", stage="eval")}, "a failure is present"),
        ({"status": "failed"}, "no failure is present"),
        ({"schema_version": 2}, "Input should be 1"),
        ({"evaluation": evaluation().model_copy(update={"domains": (("upright", 3),)})}, "count 3 examples"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        record(**changes)


def test_bits_know_their_number() -> None:
    assert Bits.pack([True, False, True]).unpack() == [True, False, True]
    with pytest.raises(ValidationError, match="cannot hold"):
        Bits(n=9, bits="gA==")


def test_nan_is_not_a_metric() -> None:
    with pytest.raises(ValidationError, match="finite"):
        Metric(name="nll", value=float("nan"), n=1)


def test_calibration_of_single_domains_is_no_part_of_what_was_found() -> None:
    plain = evaluation()
    later = plain.model_copy(update={"metrics": (*plain.metrics, Metric(name="ece/photo", value=0.1, n=3))})
    assert result_digest(CELL.key, plain, None) == result_digest(CELL.key, later, None)
    other = plain.model_copy(update={"metrics": (*plain.metrics, Metric(name="ece", value=0.1, n=3))})
    assert result_digest(CELL.key, plain, None) != result_digest(CELL.key, other, None)
