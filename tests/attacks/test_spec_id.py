from __future__ import annotations

import pytest

from robusteval.attacks.spec_id import spec_id
from robusteval.schema.types import Component, Epsilon, Norm, ThreatModel

THREAT = ThreatModel(norm=Norm.LINF, epsilon=Epsilon("8/255"))


def name(*attacks, threat=THREAT, examples=1000, seed=0, classes=10):
    components = [Component(name=attack, params=params) for attack, params in attacks]
    return spec_id(components, threat, examples=examples, seed=seed, classes=classes)


@pytest.mark.parametrize(
    ("attacks", "expected"),
    [
        ([("autoattack", {})], "aa-standard@linf-8/255@n1000@seed0@engine1"),
        ([("autoattack", {"version": "plus"})], "aa-plus@linf-8/255@n1000@seed0@engine1"),
        ([("autoattack-reference", {})], "aa-standard@linf-8/255@n1000@seed0@pyautoattack-0.2.0"),
        ([("pgd", {}), ("autoattack", {})], "pgd+aa-standard@linf-8/255@n1000@seed0@engine1"),
        ([("pgd", {}), ("square", {})], None),
    ],
)
def test_published_settings_have_their_published_name(attacks, expected) -> None:
    assert name(*attacks) == expected


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (
            {"version": "custom", "attacks": ["apgd-ce", "square"], "steps": 20},
            "aa-custom(apgd-ce,square;steps=20)",
        ),
        (
            {"version": "custom", "attacks": ["apgd-ce", "apgd-t", "fab-t", "square"]},
            "aa-custom(apgd-ce,apgd-t,fab-t,square)",
        ),
        ({"precision": "fast"}, "aa-custom(apgd-ce,apgd-t,fab-t,square;precision=fast)"),
        ({"version": "rand", "precision": "fast"}, "aa-custom(apgd-ce,apgd-dlr;precision=fast)"),
    ],
)
def test_whatever_deviates_lists_what_was_run_and_is_not_called_standard(params, expected) -> None:
    assert name(("autoattack", params)) == f"{expected}@linf-8/255@n1000@seed0@engine1"


def test_fewer_targets_than_published_are_named() -> None:
    found = name(
        ("autoattack", {}), threat=ThreatModel(norm=Norm.L2, epsilon=Epsilon("0.5")), examples=7, seed=3, classes=6
    )
    assert found == "aa-standard(targets=5)@l2-0.5@n7@seed3@engine1"


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"mode": "two-stage"}, "aa-two-stage-1/10"),
        ({"mode": "two-stage", "share": 0.25, "precision": "fast"}, "aa-two-stage-1/4(precision=fast)"),
        ({"mode": "two-stage", "version": "plus"}, "aa-two-stage-1/10(plus)"),
        (
            {"mode": "two-stage", "version": "custom", "attacks": ["square", "apgd-ce"], "queries": 100},
            "aa-two-stage-1/10(apgd-ce,square;queries=100)",
        ),
        ({"mode": "gate"}, "aa-gate"),
    ],
)
def test_modes_that_leave_something_out_have_their_own_names(params, expected) -> None:
    assert name(("autoattack", params)) == f"{expected}@linf-8/255@n1000@seed0@engine1"
