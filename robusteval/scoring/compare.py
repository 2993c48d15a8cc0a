"""Paired comparison of two models on the same examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from robusteval.schema.errors import UsageError
from robusteval.schema.records import ResultRecord
from robusteval.scoring.outcomes import Groups, Outcomes, domains_of, each_alone, group_names, outcome_of, slice_digest
from robusteval.scoring.results import Comparison, Difference
from robusteval.stats.intervals import difference
from robusteval.stats.paired import holm, minimal_detectable_drop, sign_flip_test

LEVEL = 0.05
"""Level of the verdicts, after Holm's correction."""

_RESOLUTION = 100


def compare_outcomes(names: tuple[str, str], column: str, base: Outcomes, candidate: Outcomes) -> Comparison:
    """Compare two rows on one column.

    The common training seeds are averaged per example, so the verdict is about these trained models on the
    population of examples.

    Args:
        names: base and candidate, for display.
        column: what is compared, for display.
        base: outcomes of the base.
        candidate: outcomes of the candidate.

    Raises:
        UsageError: the two were measured on different examples, or share no seed.
    """
    if base.ids_digest != candidate.ids_digest or base.domains != candidate.domains:
        raise UsageError(f"{names[0]} and {names[1]} were measured on different examples in {column}; run one suite")
    seeds = [seed for seed in base.seeds if seed in candidate.seeds]
    before, now = base.of_seeds(seeds), candidate.of_seeds(seeds)
    if before is None or now is None:
        raise UsageError(f"{names[0]} and {names[1]} share no training seed in {column}")
    change = now.right.sum(axis=0, dtype=np.int64) - before.right.sum(axis=0, dtype=np.int64)
    nets = _group_nets(change, now)
    losses, gains = int(np.count_nonzero(change < 0)), int(np.count_nonzero(change > 0))
    found = difference(now.mean(), before.mean())
    p = sign_flip_test(nets)
    return Comparison(
        base=names[0],
        candidate=names[1],
        column=column,
        n=found.n,
        seeds=tuple(seeds),
        losses=losses,
        gains=gains,
        difference=Difference(value=found.value, low=found.low, high=found.high, n=found.n),
        p=p,
        p_holm=p,
        detectable=minimal_detectable_drop(found.n_effective, (losses + gains) / found.n),
        verdict=_verdict(p, found.value),
    )


def compare_records(
    base: ResultRecord,
    candidate: ResultRecord,
    outcome: str,
    names: tuple[str, str] | None = None,
    groups: Groups = each_alone,
) -> Comparison:
    """Compare two eval records on one outcome (`clean`, `robust`, or the name of an attack).

    Args:
        base: record of the base.
        candidate: record of the candidate, of the same slice.
        outcome: which outcome.
        names: base and candidate, for display; the first digits of the keys by default.
        groups: see `Groups`.

    Raises:
        UsageError: the slices differ.
        CorruptRecordError: a record lacks the outcome.
    """
    shown = names or (base.cell_key[:12], candidate.cell_key[:12])
    before, now = (_single(record, outcome, groups) for record in (base, candidate))
    return compare_outcomes(shown, outcome, before, now)


def adjust(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Correct comparisons that were made together for their number (Holm) and judge them again."""
    adjusted = holm([comparison.p for comparison in comparisons])
    return [
        comparison.model_copy(update={"p_holm": p, "verdict": _verdict(p, comparison.difference.value)})
        for comparison, p in zip(comparisons, adjusted, strict=True)
    ]


def _single(record: ResultRecord, outcome: str, groups: Groups) -> Outcomes:
    domains, digest = domains_of(record), slice_digest(record)
    names, grouped = group_names(digest, len(domains), groups)
    right = np.array([outcome_of(record, outcome)], dtype=bool)
    return Outcomes((0,), right, domains, names, grouped, digest)


def _verdict(p: float, value: float) -> Literal["better", "worse", "not separable"]:
    if p >= LEVEL or value == 0.0:
        return "not separable"
    return "better" if value > 0.0 else "worse"


def _group_nets(change: NDArray[np.int64], outcomes: Outcomes) -> list[int]:
    return [int(net) for net in group_sums(change * domain_weights(outcomes), outcomes)]


def domain_weights(outcomes: Outcomes) -> NDArray[np.int64]:
    """(N,) weight of every example, so that domains of unequal size count the same.

    Weights are whole numbers, because the sign-flip test needs a lattice; any fixed weights keep it exact.
    """
    _, domain = np.unique(np.asarray(outcomes.strata, dtype=object).astype(str), return_inverse=True)
    sizes = np.bincount(domain)
    equal = bool(np.all(sizes == sizes[0]))
    weights = [1 if equal else max(1, round(_RESOLUTION * int(sizes.max()) / int(size))) for size in sizes]
    common = math.gcd(*weights)
    found: NDArray[np.int64] = (np.asarray(weights, dtype=np.int64) // common)[domain]
    return found


def group_sums(values: NDArray[np.int64], outcomes: Outcomes) -> NDArray[np.int64]:
    """Sum of (N,) values over every group."""
    _, group = np.unique(np.asarray(outcomes.groups, dtype=object).astype(str), return_inverse=True)
    nets = np.zeros(int(group.max()) + 1, dtype=np.int64)
    np.add.at(nets, group, values)
    return nets
