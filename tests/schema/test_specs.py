from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from robusteval.schema.specs import MethodSpec, SuiteSpec


def suite(**changes: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "version": 1,
        "summary": "A suite.",
        "train": {"data": "digits", "domains": ["upright"], "architecture": "small-cnn"},
        "methods": [{"method": "erm"}],
        "evaluate": {"threats": [{"epsilon": "8/255", "attacks": ["pgd"]}]},
        **changes,
    }


def test_a_bare_name_is_a_component_with_default_parameters() -> None:
    spec = SuiteSpec.model_validate(suite())
    assert spec.train.data.name == "digits"
    assert spec.train.data.params == {}
    assert spec.evaluate.threats[0].attacks[0].name == "pgd"


def test_a_row_is_called_by_its_label_or_its_method() -> None:
    assert MethodSpec(method="erm").row == "erm"
    assert MethodSpec(method="erm", label="natural").row == "natural"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"methods": [{"method": "erm"}, {"method": "erm"}]}, "two rows are called 'erm'"),
        ({"seeds": [0, 1, 0]}, "contain a number twice"),
        ({"seeds": []}, "at least 1"),
        ({"score": {"baseline": "ermm"}}, "did you mean 'erm'"),
        ({"name": "../up"}, "match pattern"),
        ({"name": ".hidden"}, "match pattern"),
        ({"version": 0}, "greater than 0"),
        ({"version": "1"}, "valid integer"),
        ({"version": True}, "valid integer"),
        ({"methods": [{"method": "erm", "label": "a/b"}]}, "match pattern"),
        ({"score": {"pareto": ["a_id", "speed"]}}, "'a_id', 'r_id', 'a_ood' or 'r_ood'"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        SuiteSpec.model_validate(suite(**changes))
