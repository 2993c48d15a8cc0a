from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from robusteval.schema.cells import AnyCell, CellStart, DataSlice, EvalCell, TrainCell, WeightsStart
from robusteval.schema.digest import sha256_hex
from robusteval.schema.types import Component, Epsilon, ThreatModel

D = sha256_hex(b"x")


def data_slice(**changes: Any) -> DataSlice:
    base: dict[str, Any] = {
        "dataset": Component(name="digits"),
        "revision": "1",
        "domains": ("upright",),
        "split": "test",
        "n": 3,
        "ids_digest": D,
    }
    return DataSlice(**(base | changes))


def train_cell(**changes: Any) -> TrainCell:
    base: dict[str, Any] = {
        "data": data_slice(split="train"),
        "architecture": Component(name="small-cnn"),
        "method": Component(name="pgd-at", params={"epsilon": "8/255", "lr": 0.1}),
        "protocol": 1,
        "seed": 0,
    }
    return TrainCell(**(base | changes))


def eval_cell(**changes: Any) -> EvalCell:
    base: dict[str, Any] = {
        "model": CellStart(cell=D),
        "data": data_slice(),
        "evaluator": Component(name="clean"),
        "protocol": 1,
        "seed": 0,
    }
    return EvalCell(**(base | changes))


def test_a_key_is_pinned_so_that_old_stores_stay_valid() -> None:
    assert train_cell().key == "f002ad68f41bf5f246cf0551b7e6aa15439b1937ff1cd757d9abe69099a7e731"


@pytest.mark.parametrize("cell", [train_cell(), train_cell(start=WeightsStart(weights=D)), eval_cell()])
def test_a_key_survives_json(cell: TrainCell | EvalCell) -> None:
    adapter: TypeAdapter[TrainCell | EvalCell] = TypeAdapter(AnyCell)
    assert adapter.validate_json(cell.model_dump_json()).key == cell.key


@pytest.mark.parametrize(
    "other",
    [
        train_cell(seed=1),
        train_cell(protocol=2),
        train_cell(start=CellStart(cell=D)),
        train_cell(start=WeightsStart(weights=D)),
        train_cell(data=data_slice(split="train", revision="2")),
        train_cell(method=Component(name="pgd-at", params={"epsilon": "8/255", "lr": 0.2})),
    ],
)
def test_another_question_has_another_key(other: TrainCell) -> None:
    assert other.key != train_cell().key


def test_the_same_radius_written_differently_is_the_same_question() -> None:
    first, second = (eval_cell(threat=ThreatModel(epsilon=Epsilon(text))) for text in ("8/255", "16/510"))
    assert first.key == second.key


@given(st.permutations(["epsilon", "lr", "epochs"]))
def test_the_order_of_parameters_does_not_change_a_key(order: list[str]) -> None:
    values = {"epsilon": "0.1", "lr": 0.1, "epochs": 3}
    shuffled = {name: values[name] for name in order}
    assert (
        train_cell(method=Component(name="m", params=shuffled)).key
        == train_cell(method=Component(name="m", params=values)).key
    )


@pytest.mark.parametrize("changes", [{"seed": -1}, {"protocol": 0}, {"extra": 1}, {"start": {"kind": "file"}}])
def test_a_broken_cell_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        train_cell(**changes)


def test_digests_are_64_lower_case_hexadecimal_characters() -> None:
    for wrong in ("abc", D.upper(), D + "0", "../" + D[3:]):
        with pytest.raises(ValidationError):
            CellStart(cell=wrong)
