"""The audit of selection: what other weights of the same runs reach under shift, and what peeking would gain."""

from __future__ import annotations

from collections.abc import Callable

from robusteval.schema.plans import AuditedRule, audit_role
from robusteval.scoring.outcomes import Outcomes
from robusteval.scoring.results import SelectionAudit

RULES: tuple[AuditedRule, ...] = ("last", "training-domain")


def selection_audit(read: Callable[[str, str], Outcomes | None], chosen: Outcomes | None) -> SelectionAudit | None:
    """Compare the weights that a row was scored with and those that other rules would have kept.

    Args:
        read: from a role and an outcome to the row's outcomes.
        chosen: the row's clean outcomes under shift.

    Returns:
        None if there are no other weights, or they were not measured for the same seeds. Of several other rules the
        first is shown; the premium is over all of them.
    """
    found = {rule: other for rule in RULES if (other := read(audit_role(rule), "clean")) is not None}
    if chosen is None or not found or any(other.seeds != chosen.seeds for other in found.values()):
        return None
    ours, theirs = chosen.per_seed(), [other.per_seed() for other in found.values()]
    best = sum(max(value, *(other[seed] for other in theirs)) for seed, value in ours.items()) / len(ours)
    premium = max(0.0, best - sum(ours.values()) / len(ours))
    rule, other = next(iter(found.items()))
    return SelectionAudit(rule=rule, a_ood=other.estimate(), oracle_premium=premium)
