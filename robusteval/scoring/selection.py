"""The audit of selection: what other weights of the same runs reach under shift, and what peeking would gain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from robusteval.schema.plans import audit_role
from robusteval.scoring.outcomes import Outcomes
from robusteval.scoring.results import SelectionAudit

RULES: tuple[Literal["last", "training-domain"], ...] = ("last", "training-domain")


def selection_audit(read: Callable[[str, str], Outcomes | None], chosen: Outcomes | None) -> SelectionAudit | None:
    """Compare the weights that a row was scored with and those that the other rule would have kept.

    Args:
        read: from a role and an outcome to the row's outcomes.
        chosen: the row's clean outcomes under shift.

    Returns:
        None if there are no other weights, or they were not measured for the same seeds.
    """
    for rule in RULES:
        other = read(audit_role(rule), "clean")
        if other is None or chosen is None or other.seeds != chosen.seeds:
            continue
        ours, theirs = chosen.per_seed(), other.per_seed()
        best = sum(max(ours[seed], theirs[seed]) for seed in ours) / len(ours)
        premium = max(0.0, best - sum(ours.values()) / len(ours))
        return SelectionAudit(rule=rule, a_ood=other.estimate(), oracle_premium=premium)
    return None
