"""The 2 x 2 table: from a stored plan and its records to one scored row a method.

All four columns are means over domains, which weigh the same; each domain is the mean over its examples of the mean
over training seeds. The interval over examples is Wilson's, at the effective sample size where several examples come
from one source image (`stats.intervals.wilson_clustered`); the interval over seeds is Student's t. A row with a
missing or failed cell is shown with what there is, is not ranked, and nothing is put in place of the missing number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, partial

from robusteval.schema.errors import UsageError, unknown_name
from robusteval.schema.plans import RowSeed, StoredPlan, role_of
from robusteval.schema.specs import CELLS, Cell
from robusteval.scoring.compare import adjust, compare_outcomes
from robusteval.scoring.corruptions import corruption_errors, shows_imagenet
from robusteval.scoring.costs import read_costs
from robusteval.scoring.domain_summaries import calibration_errors, spreads, worst_domains
from robusteval.scoring.outcomes import (
    CONFIDENCE,
    Groups,
    Outcomes,
    Records,
    as_difference,
    each_alone,
    evaluation_of,
    gap,
    read_outcomes,
)
from robusteval.scoring.results import (
    Comparison,
    Difference,
    DomainScore,
    Estimate,
    Gaps,
    MethodScore,
    Missing,
    Side,
    SuiteTable,
    ThreatScore,
)
from robusteval.scoring.selection import selection_audit
from robusteval.scoring.spec_names import read_specs
from robusteval.scoring.threats import distinct_names, union_score, unseen_scores
from robusteval.stats.intervals import ClusteredEstimate
from robusteval.stats.pareto import pareto_front
from robusteval.stats.ratio import ratio

COSTS = ("train_passes_per_example", "train_wall_s")
"""Columns besides the four accuracies that a front can be taken over; less is better."""
_OUTCOME = {"a_id": "clean", "r_id": "robust", "a_ood": "clean", "r_ood": "robust"}


def score(plan: StoredPlan, records: Records, groups: Groups = each_alone) -> SuiteTable:
    """Score a suite run.

    Args:
        plan: which cells play which role.
        records: cell key to record; absent keys are cells that were not run.
        groups: from a slice's `ids_digest` to the group of each of its examples, or None if each stands alone.

    Raises:
        CorruptRecordError: a record contradicts the plan or itself.
    """
    reader = _Reader(plan, records, cache(groups))
    rows = [reader.row(label) for label in plan.labels]
    compared = _compare(plan, reader)
    columns = tuple(column for column in plan.pareto if plan.plans(column))
    rows = [row.model_copy(update={"comparisons": compared.get(row.method, {})}) for row in rows]
    table = SuiteTable(
        suite=plan.suite,
        version=plan.version,
        suite_digest=plan.suite_digest,
        summary=plan.summary,
        threats=distinct_names(plan.threats),
        unseen_threats=distinct_names(plan.unseen_threats),
        id_domains=plan.id_domains,
        ood_domains=plan.ood_domains,
        pareto=columns,
        baseline=plan.baseline_row,
        confidence=CONFIDENCE,
        protocol=plan.protocol,
        rows=tuple(rows),
    )
    front = front_rows(table, columns)
    marked = tuple(row.model_copy(update={"pareto": row.method in front}) for row in table.rows)
    return table.model_copy(update={"rows": marked})


def front_rows(table: SuiteTable, columns: Sequence[str]) -> list[str]:
    """Names of the complete rows that no other complete row dominates over `columns`; ties stay.

    Args:
        table: a scored suite.
        columns: any of the four accuracies (more is better) and of `COSTS` (less is better).

    Raises:
        UsageError: an unknown column.
    """
    for column in columns:
        if column not in (*CELLS, *COSTS):
            raise UsageError(unknown_name("column", column, (*CELLS, *COSTS)))
    names: list[str] = []
    points: list[list[float]] = []
    for row in table.rows:
        values = [column_value(row, column) for column in columns]
        known = [value for value in values if value is not None]
        if row.ranked and known and len(known) == len(values):
            names.append(row.method)
            points.append(known)
    return [names[index] for index in pareto_front(points, [column in CELLS for column in columns])]


def column_value(row: MethodScore, column: str) -> float | None:
    """Value of an accuracy or cost column."""
    found = getattr(row, column)
    return found.value if isinstance(found, Estimate) else found


class _Reader:
    """Reads the rows of one plan."""

    def __init__(self, plan: StoredPlan, records: Records, groups: Groups) -> None:
        self.plan = plan
        self.records = records
        self.groups = groups
        self._read: dict[tuple[str, str, str], Outcomes | None] = {}

    def outcomes(self, label: str, column: Cell, threat: int = 0, outcome: str | None = None) -> Outcomes | None:
        """Outcomes of one column of one row, unpacked once."""
        return self.role(label, role_of(column, threat), outcome or _OUTCOME[column])

    def role(self, label: str, role: str, outcome: str) -> Outcomes | None:
        """Outcomes of one role of one row, unpacked once."""
        key = (label, role, outcome)
        if key not in self._read:
            micro = self.plan.protocol is not None and self.plan.protocol.average == "micro"
            self._read[key] = read_outcomes(
                self.plan.row(label), role, outcome, self.records, self.groups, pooled=micro and "_ood" in role
            )
        return self._read[key]

    def row(self, label: str) -> MethodScore:
        """Score one row without its comparisons and its place."""
        seeds = self.plan.row(label)
        found = {column: self.outcomes(label, column) for column in CELLS}
        domains = self._domains(label, found)
        return MethodScore(
            method=label,
            recipe=seeds[0].method,
            **{column: None if outcomes is None else outcomes.estimate() for column, outcomes in found.items()},
            threats={
                name: self._threat(label, index)
                for index, name in enumerate(distinct_names(self.plan.threats))
                if index > 0
            },
            union=union_score(self.plan, partial(self.outcomes, label)),
            **unseen_scores(self.plan, partial(self.role, label), found["r_ood"]),
            specs=read_specs(seeds, self.records),
            gaps=self._gaps(label, found),
            audit=selection_audit(partial(self.role, label), found["a_ood"]),
            domains=domains,
            worst=worst_domains(domains),
            spread=spreads(found),
            corruption=corruption_errors(found["a_ood"], found["a_id"], imagenet=self._shows_imagenet(label)),
            **read_costs(seeds, self.records).model_dump(),
            flags=self._flags(seeds),
            missing=tuple(missing_cells(seeds, self.records)),
        )

    def _boundary(self, label: str, column: Cell, threat: int) -> ClusteredEstimate | None:
        """Clean minus robust accuracy on the attacked examples themselves."""
        robust = self.outcomes(label, column, threat)
        if robust is None:
            return None
        clean = self.outcomes(label, column, threat, "clean")
        return gap(None if clean is None else clean.mean(), robust.mean())

    def _gaps(self, label: str, found: dict[Cell, Outcomes | None]) -> Gaps:
        b_id, b_ood = self._boundary(label, "r_id", 0), self._boundary(label, "r_ood", 0)
        return Gaps(
            g_clean=as_difference(_shift_gap(found["a_id"], found["a_ood"])),
            g_adv=as_difference(_shift_gap(found["r_id"], found["r_ood"])),
            b_id=as_difference(b_id),
            b_ood=as_difference(b_ood),
            retention=_retention(found["a_ood"], found["a_id"]),
            retention_adv=_retention(found["r_ood"], found["r_id"]),
            interaction=as_difference(gap(b_id, b_ood)),
        )

    def _shows_imagenet(self, label: str) -> bool:
        """Whether the shifted images of a row are corrupted images of ImageNet."""
        keys = [row.cells.get("a_ood", "") for row in self.plan.row(label)]
        data = next((self.records[key].cell.data.dataset for key in keys if key in self.records), None)
        return data is not None and shows_imagenet(data)

    def _threat(self, label: str, index: int) -> ThreatScore:
        r_id, r_ood = self.outcomes(label, "r_id", index), self.outcomes(label, "r_ood", index)
        return ThreatScore(
            r_id=None if r_id is None else r_id.estimate(),
            r_ood=None if r_ood is None else r_ood.estimate(),
            b_id=as_difference(self._boundary(label, "r_id", index)),
            b_ood=as_difference(self._boundary(label, "r_ood", index)),
        )

    def _domains(self, label: str, found: dict[Cell, Outcomes | None]) -> tuple[DomainScore, ...]:
        scores = []
        sides: tuple[tuple[Side, Cell, Cell], ...] = (("id", "a_id", "r_id"), ("ood", "a_ood", "r_ood"))
        for side, clean, robust in sides:
            measured = [outcomes for outcomes in (found[clean], found[robust]) if outcomes is not None]
            calibration = calibration_errors(self.plan.row(label), clean, self.records)
            for domain in dict.fromkeys(name for outcomes in measured for name in outcomes.domains):
                scores.append(
                    DomainScore(
                        domain=domain,
                        side=side,
                        clean=_domain_estimate(found[clean], domain),
                        robust=_domain_estimate(found[robust], domain),
                        ece=calibration.get(domain),
                    )
                )
        return tuple(scores)

    def _flags(self, seeds: Sequence[RowSeed]) -> tuple[str, ...]:
        codes: set[str] = set()
        for row in seeds:
            for key in row.cells.values():
                record = self.records.get(key)
                if record is not None and record.status == "ok":
                    codes.update(flag.code for flag in evaluation_of(record).flags)
        return tuple(sorted(codes))


def missing_cells(rows: Sequence[RowSeed], records: Records) -> list[Missing]:
    """Cells of the seeds of one row that have no usable result, training included."""
    missing = []
    for row in rows:
        training = {} if row.train_key is None else {"train": row.train_key}
        for role, key in {**training, **row.cells}.items():
            record = records.get(key)
            if record is None:
                missing.append(Missing(seed=row.seed, fold=row.fold, role=role, cell=key, state="not run"))
            elif record.status != "ok":
                failure = record.failure
                reason = "" if failure is None else f"{failure.type}: {failure.message}"
                where = {"seed": row.seed, "fold": row.fold, "role": role, "cell": key}
                missing.append(Missing(**where, state=record.status, reason=reason))
    return missing


def _shift_gap(first: Outcomes | None, second: Outcomes | None) -> ClusteredEstimate | None:
    """Difference of two columns over the training seeds that both have."""
    if first is None or second is None:
        return None
    left, right = first.of_seeds(second.seeds), second.of_seeds(first.seeds)
    return gap(None if left is None else left.mean(), None if right is None else right.mean())


def _retention(shifted: Outcomes | None, own: Outcomes | None) -> Difference | None:
    """Shifted accuracy as a share of that in distribution, over the training seeds that both have."""
    if shifted is None or own is None:
        return None
    above, below = shifted.of_seeds(own.seeds), own.of_seeds(shifted.seeds)
    if above is None or below is None:
        return None
    first, second = above.mean(), below.mean()
    found = ratio(first, second)
    if found is None or not math.isfinite(found[2]):
        return None
    return Difference(value=found[0], low=found[1], high=found[2], n=min(first.n, second.n), interval="mover")


def _domain_estimate(outcomes: Outcomes | None, domain: str) -> Estimate | None:
    part = None if outcomes is None else outcomes.of_domain(domain)
    return None if part is None else part.estimate()


def _compare(plan: StoredPlan, reader: _Reader) -> dict[str, dict[Cell, Comparison]]:
    """Every row with the baseline, column by column, corrected over all of them."""
    base = plan.baseline_row
    keys: list[tuple[str, Cell]] = []
    found: list[Comparison] = []
    for column in CELLS:
        before = reader.outcomes(base, column)
        for label in plan.labels:
            now = None if label == base else reader.outcomes(label, column)
            if before is None or now is None or not set(before.seeds) & set(now.seeds):
                continue
            keys.append((label, column))
            found.append(compare_outcomes((base, label), column, before, now))
    table: dict[str, dict[Cell, Comparison]] = {}
    for (label, column), comparison in zip(keys, adjust(found), strict=True):
        table.setdefault(label, {})[column] = comparison
    return table
