"""Robustness to several threat models: under all of them at once, and under those that were not prepared for.

Both are functions of stored outcomes. The union of threats counts an example as robust only if it survives every one
of them (Tramer and Boneh, NeurIPS 2019, arXiv 1904.13000). Unseen threats follow OODRobustBench (Li et al., ICML 2024,
arXiv 2310.12793): OOD-T is the mean robust accuracy over unseen threats on in-distribution examples, OOD-D the robust
accuracy under distribution shift, and the OOD robustness the mean of the two, each half with the same weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from robusteval.schema.errors import CorruptRecordError
from robusteval.schema.plans import StoredPlan, unseen_role
from robusteval.schema.specs import Cell
from robusteval.schema.threats import Threat
from robusteval.scoring.outcomes import Outcomes, as_difference, gap, with_seeds
from robusteval.scoring.results import Difference, Estimate, ThreatScore
from robusteval.stats.intervals import average


def distinct_names(threats: Iterable[Threat]) -> tuple[str, ...]:
    """Names of threat models; those that occur again carry their index."""
    names = [str(threat) for threat in threats]
    return tuple(name if names.index(name) == index else f"{name}#{index}" for index, name in enumerate(names))


def in_common(parts: Sequence[Outcomes | None], what: str) -> list[Outcomes]:
    """The same outcomes over the training seeds that all parts have; empty unless every part has one of those.

    Args:
        parts: outcomes of one row under each threat, None where there are none.
        what: what the parts are, for the message.

    Raises:
        CorruptRecordError: the parts are about different examples.
    """
    found = [part for part in parts if part is not None]
    if not found or len(found) < len(parts):
        return []
    first = found[0]
    if any(part.ids_digest != first.ids_digest or part.domains != first.domains for part in found):
        raise CorruptRecordError(
            f"{what}: the records of its threats are about different examples; run the suite again with --resume all"
        )
    shared = [seed for seed in first.seeds if all(seed in part.seeds for part in found)]
    kept = [part.of_seeds(shared) for part in found]
    return [part for part in kept if part is not None]


def union(parts: Sequence[Outcomes]) -> Outcomes:
    """Whether each example survives every threat: (S, N), from parts as `in_common` gives them, at least one."""
    return replace(parts[0], right=np.logical_and.reduce([part.right for part in parts]))


def mean_over_threats(parts: Sequence[Outcomes]) -> Outcomes:
    """Share of the threats that each example survives: (S, N) in [0, 1], from parts as `in_common` gives them."""
    return replace(parts[0], right=np.stack([part.right for part in parts]).mean(axis=0))


def overall(shifted: Outcomes | None, unseen: Outcomes | None) -> Estimate | None:
    """OOD robustness: the mean of the robust accuracies under shift and under unseen threats, over common seeds.

    The interval over examples is the square-and-add one of a mean of two correlated estimates.
    """
    if shifted is None or unseen is None:
        return None
    left, right = shifted.of_seeds(unseen.seeds), unseen.of_seeds(shifted.seeds)
    if left is None or right is None:
        return None
    both = average(left.mean(), right.mean())
    first, second = left.per_seed(), right.per_seed()
    return with_seeds(both, {seed: (first[seed] + second[seed]) / 2 for seed in left.seeds}, "square-and-add")


def union_score(plan: StoredPlan, read: Callable[[Cell, int, str | None], Outcomes | None]) -> ThreatScore | None:
    """Robust accuracy of one row under every threat at once; None with one threat, or if the plan does without.

    Args:
        plan: the stored plan.
        read: outcomes of the row by column, threat and name; the column's own name if that is None.
    """
    if not plan.union or len(plan.threats) < 2:
        return None
    sides: dict[str, Estimate | Difference | None] = {}
    columns: tuple[tuple[str, Cell], ...] = (("id", "r_id"), ("ood", "r_ood"))
    for side, column in columns:
        parts = in_common([read(column, index, None) for index in range(len(plan.threats))], f"union of {column}")
        if parts:
            together = union(parts)
            clean = read(column, 0, "clean")
            before = None if clean is None else clean.of_seeds(together.seeds)
            sides[f"r_{side}"] = together.estimate()
            sides[f"b_{side}"] = as_difference(gap(None if before is None else before.mean(), together.mean()))
    return ThreatScore.model_validate(sides)


def unseen_scores(
    plan: StoredPlan, read: Callable[[str, str], Outcomes | None], shifted: Outcomes | None
) -> dict[str, Any]:
    """Robust accuracy of one row under each unseen threat, under all of them on average, and together with the shift.

    Args:
        plan: the stored plan.
        read: outcomes of the row by role and name.
        shifted: outcomes under distribution shift.

    Returns:
        The fields `unseen`, `r_ood_threats` and `r_ood_overall` of a `MethodScore`.
    """
    names = distinct_names(plan.unseen_threats)
    each = [read(unseen_role(index), "robust") for index in range(len(names))]
    parts = in_common(each, "unseen threats")
    mean = mean_over_threats(parts) if parts else None
    return {
        "unseen": {name: part.estimate() for name, part in zip(names, each, strict=True) if part is not None},
        "r_ood_threats": None if mean is None else mean.estimate(),
        "r_ood_overall": overall(shifted, mean),
    }
