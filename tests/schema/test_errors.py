from __future__ import annotations

import pytest

from robusteval.schema import errors


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.RobustevalError, 1),
        (errors.UsageError, 2),
        (errors.SpecError, 2),
        (errors.UnknownNameError, 2),
        (errors.DataError, 2),
        (errors.CheckpointError, 2),
        (errors.StoreError, 3),
        (errors.CorruptRecordError, 3),
        (errors.CellError, 3),
    ],
)
def test_every_error_has_its_exit_code(kind: type[errors.RobustevalError], code: int) -> None:
    assert kind.exit_code == code


def test_near_names_are_offered_before_a_list() -> None:
    text = errors.unknown_name("method", "rifft", ["rift", "erm", "sam"], listing="robusteval ls methods")
    assert text == "unknown method 'rifft'; did you mean 'rift'? (robusteval ls methods)"


def test_without_a_near_name_the_valid_ones_are_listed() -> None:
    assert errors.unknown_name("norm", "zzz", ["linf", "l2"]) == "unknown norm 'zzz'; valid: l2, linf"
    assert errors.unknown_name("row", "x", []) == "unknown row 'x'; valid: none"
    assert errors.unknown_name("k", "zzz", [f"name{i:02d}" for i in range(20)]).endswith("name11, ...")
