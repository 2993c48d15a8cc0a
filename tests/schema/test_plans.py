from __future__ import annotations

import pytest
from pydantic import ValidationError

from robusteval.schema.plans import RowSeed, StoredPlan, role_of
from robusteval.schema.types import Epsilon, ThreatModel

KEY = "0" * 64


def row(**changes):
    fields = {"label": "erm", "method": "erm", "seed": 0, "train_key": KEY, "cells": {"a_id": KEY, "r_id@0": KEY}}
    return RowSeed.model_validate({**fields, **changes})


def plan(**changes):
    fields = {
        "suite": "digits",
        "version": 1,
        "suite_digest": KEY,
        "rows": (row(),),
        "id_domains": ("upright",),
        "threats": (ThreatModel(epsilon=Epsilon("8/255")),),
    }
    return StoredPlan.model_validate({**fields, **changes})


def test_a_plan_survives_json():
    stored = plan(rows=(row(), row(seed=1), row(label="b")), baseline="b", created_at="2025-01-01T00:00:00Z")
    assert StoredPlan.model_validate_json(stored.model_dump_json()) == stored


def test_labels_keep_table_order_and_rows_hold_all_seeds():
    stored = plan(rows=(row(label="b"), row(label="a"), row(label="b", seed=1)))
    assert stored.labels == ("b", "a")
    assert [item.seed for item in stored.row("b")] == [0, 1]
    assert stored.baseline_row == "b"


def test_roles_carry_the_threat_only_where_there_is_one():
    assert role_of("a_ood", 1) == "a_ood"
    assert role_of("r_ood", 1) == "r_ood@1"
    assert plan().plans("r_id")
    assert not plan().plans("a_ood")


@pytest.mark.parametrize("role", ["r_id", "a_id@0", "r_id@01", "r_id@-1", "x"])
def test_unknown_roles_are_refused(role):
    with pytest.raises(ValidationError):
        row(cells={role: KEY})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": (row(), row())}, "has seed 0 twice"),
        ({"rows": (row(), row(seed=1, method="sam"))}, "two methods"),
        ({"rows": (row(cells={"r_id@1": KEY}),)}, "the plan has 1 threats"),
        ({"baseline": "emr"}, "did you mean 'erm'"),
        ({"rows": ()}, "at least 1 item"),
    ],
)
def test_contradictions_are_named(changes, message):
    with pytest.raises(ValidationError, match=message):
        plan(**changes)
