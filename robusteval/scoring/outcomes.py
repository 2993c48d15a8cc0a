"""Per-example outcomes read from records: one array per column of a row, seeds by examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robusteval.schema.digest import json_digest
from robusteval.schema.errors import CorruptRecordError
from robusteval.schema.plans import RowSeed
from robusteval.schema.records import Evaluation, ResultRecord
from robusteval.scoring.results import Difference, Estimate
from robusteval.stats.intervals import ClusteredEstimate, difference, t_interval, wilson_clustered

Records = Mapping[str, ResultRecord]
"""Cell key to record."""
Groups = Callable[[str], Sequence[str] | None]
"""From a slice's `ids_digest` to one group name per example, in slice order; None if each stands alone."""


def each_alone(digest: str) -> None:
    """Groups of data whose examples are independent draws."""


CONFIDENCE = 0.95
"""Nominal coverage of every interval."""


@dataclass(frozen=True)
class Outcomes:
    """One kind of outcome of one model recipe on one slice, for several training seeds.

    Attributes:
        seeds: S training seeds.
        right: (S, N) bool, whether the example was (still) predicted correctly; or the share in [0, 1] of several such
            outcomes.
        domains: N domain names.
        groups: N group names.
        grouped: whether the groups are more than one example each.
        ids_digest: digest of the N example ids.
        alike: N names of what counts alike, or None if that is the domains.
    """

    seeds: tuple[int, ...]
    right: NDArray[np.bool_] | NDArray[np.float64]
    domains: tuple[str, ...]
    groups: tuple[str, ...]
    grouped: bool
    ids_digest: str
    alike: tuple[str, ...] | None = None

    def of_seeds(self, seeds: Sequence[int]) -> Outcomes | None:
        """The same for some of the seeds; None if that leaves none."""
        kept = [index for index, seed in enumerate(self.seeds) if seed in seeds]
        if not kept:
            return None
        names = tuple(self.seeds[index] for index in kept)
        return replace(self, seeds=names, right=self.right[kept])

    def of_domain(self, domain: str) -> Outcomes | None:
        """The same for the examples of one domain; None if there are none."""
        kept = [index for index, name in enumerate(self.domains) if name == domain]
        if not kept:
            return None
        groups = tuple(self.groups[index] for index in kept)
        grouped = len(set(groups)) < len(groups)
        return Outcomes(self.seeds, self.right[:, kept], (domain,) * len(kept), groups, grouped, self.ids_digest)

    def mean(self) -> ClusteredEstimate:
        """Accuracy: mean over seeds per example, then mean over domains, which weigh the same unless pooled."""
        return wilson_clustered(self.right.mean(axis=0), self.groups, strata=self.strata, confidence=CONFIDENCE)

    @property
    def strata(self) -> tuple[str, ...]:
        """N names of what counts alike: the domains, or one for all examples where they are pooled."""
        return self.domains if self.alike is None else self.alike

    def per_seed(self) -> dict[int, float]:
        """Accuracy of every seed: the mean over domains, or over all examples where they are pooled."""
        names = np.asarray(self.strata, dtype=object)
        masks = [names == domain for domain in dict.fromkeys(self.strata)]
        return {
            seed: float(np.mean([row[mask].mean() for mask in masks]))
            for seed, row in zip(self.seeds, self.right, strict=True)
        }

    def estimate(self) -> Estimate:
        """The accuracy with the interval over examples and the one over seeds."""
        return with_seeds(self.mean(), self.per_seed(), "wilson-clustered" if self.grouped else "wilson")


def with_seeds(over_examples: ClusteredEstimate, seeds: dict[int, float], interval: str) -> Estimate:
    """An accuracy with its interval over examples and Student's t over training seeds, both cut to [0, 1]."""
    over_seeds = t_interval(list(seeds.values()), CONFIDENCE)
    return Estimate(
        value=over_examples.value,
        low=max(0.0, over_examples.low),
        high=min(1.0, over_examples.high),
        n=over_examples.n,
        n_effective=over_examples.n_effective,
        interval=interval,
        seeds=seeds,
        seed_low=None if over_seeds is None else max(0.0, over_seeds[0]),
        seed_high=None if over_seeds is None else min(1.0, over_seeds[1]),
        seed_half_width=None if over_seeds is None else (over_seeds[1] - over_seeds[0]) / 2.0,
        seed_interval=None if over_seeds is None else "student-t",
    )


def read_outcomes(
    rows: Sequence[RowSeed], role: str, outcome: str, records: Records, groups: Groups, *, pooled: bool = False
) -> Outcomes | None:
    """Outcomes of one role for the seeds of one row that have a result, in all folds that have any.

    Args:
        rows: the seeds of one row.
        role: which cell of each seed.
        outcome: `clean`, `robust`, or the name of an attack.
        records: all records.
        groups: see `Groups`.
        pooled: the examples of all domains of a fold count alike, instead of the domains.

    Returns:
        None if no seed has a result, or no seed has one in every fold.

    Raises:
        CorruptRecordError: a record lacks the outcome, has the wrong number of examples, or the seeds of the row
            were measured on different examples.
    """
    parts: dict[str, Outcomes] = {}
    for fold in dict.fromkeys(row.fold for row in rows):
        part = _read_fold([row for row in rows if row.fold == fold], role, outcome, records, groups)
        if part is not None:
            parts[fold] = replace(part, alike=(fold,) * len(part.domains)) if pooled else part
    return _joined(parts)


def _joined(parts: Mapping[str, Outcomes]) -> Outcomes | None:
    """The folds of one row side by side; a domain keeps its name where it is the one that the fold is named after."""
    if len(parts) < 2:
        return next(iter(parts.values()), None)
    common = [part.seeds for part in parts.values()]
    seeds = [seed for seed in common[0] if all(seed in other for other in common)]
    kept = {fold: found for fold, part in parts.items() if (found := part.of_seeds(seeds)) is not None}
    if not kept:
        return None
    domains = [name if name == fold else f"{name} [{fold}]" for fold, part in kept.items() for name in part.domains]
    groups = tuple(name for part in kept.values() for name in part.groups)
    return Outcomes(
        seeds=tuple(seeds),
        right=np.concatenate([part.right for part in kept.values()], axis=1),
        domains=tuple(domains),
        groups=groups,
        grouped=len(set(groups)) < len(groups),
        ids_digest=json_digest([part.ids_digest for part in kept.values()]),
        alike=None
        if any(part.alike is None for part in kept.values())
        else tuple(name for part in kept.values() for name in part.alike or ()),
    )


def _read_fold(rows: Sequence[RowSeed], role: str, outcome: str, records: Records, groups: Groups) -> Outcomes | None:
    found: list[tuple[int, ResultRecord]] = []
    for row in rows:
        record = records.get(row.cells.get(role, ""))
        if record is not None and record.status == "ok":
            found.append((row.seed, record))
    if not found:
        return None
    domains, digest = domains_of(found[0][1]), slice_digest(found[0][1])
    for _, record in found[1:]:
        if slice_digest(record) != digest or domains_of(record) != domains:
            raise CorruptRecordError(
                f"{rows[0].label} {role}: the records of its seeds are about different examples; "
                f"run the suite again with --resume all"
            )
    names, grouped = group_names(digest, len(domains), groups)
    right = np.array([outcome_of(record, outcome) for _, record in found], dtype=bool)
    return Outcomes(tuple(seed for seed, _ in found), right, domains, names, grouped, digest)


def evaluation_of(record: ResultRecord) -> Evaluation:
    """The evaluation of a finished eval cell.

    Raises:
        CorruptRecordError: it has none.
    """
    if record.evaluation is None:
        raise CorruptRecordError(f"record {record.cell_key[:12]} is no evaluation but a {record.cell.kind} record")
    return record.evaluation


def slice_digest(record: ResultRecord) -> str:
    """Digest of the example ids that a record is about."""
    return record.cell.data.ids_digest


def domains_of(record: ResultRecord) -> tuple[str, ...]:
    """Domain of every example of a record, in slice order.

    Raises:
        CorruptRecordError: the counts do not add up to the slice.
    """
    domains = tuple(name for name, count in evaluation_of(record).domains for _ in range(count))
    if len(domains) != record.cell.data.n or not domains:
        raise CorruptRecordError(
            f"record {record.cell_key[:12]}: its domains hold {len(domains)} examples, its slice {record.cell.data.n}"
        )
    return domains


def outcome_of(record: ResultRecord, outcome: str) -> list[bool]:
    """Outcome bits of a record; `robust` counts only examples that are right when clean, as zero is in every ball.

    Raises:
        CorruptRecordError: the record has no such outcome, or it is of another length than the slice.
    """
    outcomes = evaluation_of(record).outcomes
    if outcome not in outcomes:
        raise CorruptRecordError(
            f"record {record.cell_key[:12]} has no outcome {outcome!r}; it has {', '.join(sorted(outcomes)) or 'none'}"
        )
    flags = outcomes[outcome].unpack()
    if len(flags) != record.cell.data.n:
        raise CorruptRecordError(
            f"record {record.cell_key[:12]}: outcome {outcome!r} has {len(flags)} bits, its slice "
            f"{record.cell.data.n} examples"
        )
    if outcome == "robust" and "clean" in outcomes:
        return [right and clean for right, clean in zip(flags, outcomes["clean"].unpack(), strict=True)]
    return flags


def group_names(digest: str, n: int, groups: Groups) -> tuple[tuple[str, ...], bool]:
    """Group of every example of a slice, and whether any group has more than one example.

    Raises:
        CorruptRecordError: the stored groups do not fit the slice.
    """
    stored = groups(digest)
    if stored is None:
        return tuple(f"{digest[:16]}:{index}" for index in range(n)), False
    if len(stored) != n:
        raise CorruptRecordError(f"id list {digest[:12]} names {len(stored)} groups for {n} examples")
    return tuple(stored), len(set(stored)) < n


def gap(first: ClusteredEstimate | None, second: ClusteredEstimate | None) -> ClusteredEstimate | None:
    """First minus second, or None if one is missing."""
    return None if first is None or second is None else difference(first, second)


def as_difference(found: ClusteredEstimate | None) -> Difference | None:
    """The part of an estimated difference that is shown."""
    return None if found is None else Difference(value=found.value, low=found.low, high=found.high, n=found.n)
