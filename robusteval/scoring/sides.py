"""Two sides of a comparison, found in records: which cell belongs to which, and whether both were asked the same.

A cell can only be compared with one that asked the same question of another model: the same examples, evaluator,
parameters, protocol, threat and evaluation seed. Anything else is an error that lists the fields, never a comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robusteval.schema.cells import AnyCell, EvalCell
from robusteval.schema.errors import CorruptRecordError, UsageError, unknown_name
from robusteval.schema.plans import StoredPlan, stands_for
from robusteval.schema.records import ResultRecord
from robusteval.schema.specs import CELLS
from robusteval.scoring.outcomes import (
    Groups,
    Outcomes,
    Records,
    domains_of,
    each_alone,
    evaluation_of,
    group_names,
    outcome_of,
    slice_digest,
)
from robusteval.scoring.verdicts import Measurement, ModelComparison, Pair, Rule, judge

_HEADINGS = {"a_id": "A_id", "a_ood": "A_ood", "r_id": "R_id", "r_ood": "R_ood", "r_unseen": "R_unseen"}
ONE_RECORD = "record"
"""Role of a record that was given by itself."""
_LISTED = 8


class MismatchError(UsageError):
    """Two results that are to be compared answer different questions."""


@dataclass(frozen=True)
class Side:
    """Records of one model, or of the rows of one table.

    Attributes:
        name: what a person calls it.
        rows: row to role to seed to record; a single model has one row.
        groups: see `scoring.outcomes.Groups`.
    """

    name: str
    rows: Mapping[str, Mapping[str, Mapping[int, ResultRecord]]]
    groups: Groups = each_alone


def side_of_plan(name: str, plan: StoredPlan, records: Records, groups: Groups, row: str | None = None) -> Side:
    """The finished cells of a stored plan, or of one of its rows.

    Raises:
        UsageError: there is no such row, or nothing of it has a result.
    """
    if row is not None and row not in plan.labels:
        raise UsageError(unknown_name(f"row of suite {plan.suite}", row, plan.labels))
    rows: dict[str, dict[str, dict[int, ResultRecord]]] = {}
    for entry in plan.rows:
        if row is not None and entry.label != row:
            continue
        for role, key in entry.cells.items():
            record = records.get(key)
            if record is not None and record.status == "ok":
                label = f"{entry.label} [{entry.fold}]" if entry.fold else entry.label
                rows.setdefault(label, {}).setdefault(role, {})[entry.seed] = record
    if not rows:
        raise UsageError(
            f"{name}: nothing of {plan.suite}{f' row {row}' if row else ''} has a result yet; run it first"
        )
    return Side(name, rows, groups)


def side_of_record(name: str, record: ResultRecord, groups: Groups = each_alone) -> Side:
    """One eval record by itself.

    Raises:
        UsageError: it has no evaluation.
    """
    if record.evaluation is None:
        raise UsageError(f"{name}: is the record of a {record.cell.kind} cell without an evaluation; give an eval cell")
    return Side(name, {"": {ONE_RECORD: {0: record}}}, groups)


def compare_sides(base: Side, candidate: Side, rule: Rule, roles: tuple[str, ...] | None = None) -> ModelComparison:
    """Pair the cells of two sides and judge them together.

    With one row a side these two are compared, whatever they are called; else the rows of the same name.

    Args:
        base: what is compared with.
        candidate: what is compared.
        rule: what counts as a regression.
        roles: only these cells (`r_id` means every threat), of which none may be absent; all that both sides have by
            default.

    Raises:
        MismatchError: two cells that belong together answer different questions.
        UsageError: nothing can be compared.
        CorruptRecordError: a record contradicts itself.
    """
    pairs = [
        _pair(row, role, (base, before), (candidate, now), rule)
        for row, left, right in _matching_rows(base, candidate)
        for role, before, now in _matching_roles(left, right)
        if roles is None or any(stands_for(name, role) for name in roles)
    ]
    absent = [name for name in roles or () if not any(stands_for(name, pair.column) for pair in pairs)]
    if absent or not pairs:
        raise UsageError(
            f"{base.name} and {candidate.name} have no finished cell{' ' + ', '.join(absent) if absent else ''} in "
            f"common; base has {_inventory(base)}; candidate has {_inventory(candidate)}"
        )
    return judge(base.name, candidate.name, pairs, rule)


_Cells = Mapping[str, Mapping[int, ResultRecord]]


def _matching_rows(base: Side, candidate: Side) -> list[tuple[str, _Cells, _Cells]]:
    if len(base.rows) == len(candidate.rows) == 1:
        ((left_name, left),) = base.rows.items()
        ((right_name, right),) = candidate.rows.items()
        return [(right_name if right_name == left_name else "", left, right)]
    return [(row, base.rows[row], candidate.rows[row]) for row in base.rows if row in candidate.rows]


def _matching_roles(
    left: _Cells, right: _Cells
) -> list[tuple[str, Mapping[int, ResultRecord], Mapping[int, ResultRecord]]]:
    order: dict[str, int] = {name: index for index, name in enumerate(CELLS)}
    shared = [role for role in left if role in right and ":" not in role]
    shared.sort(key=lambda role: (order.get(role.partition("@")[0], len(order)), role))
    return [(role, left[role], right[role]) for role in shared]


def _inventory(side: Side) -> str:
    cells = [f"{row + ' ' if row else ''}{role}" for row, roles in side.rows.items() for role in roles]
    return ", ".join(cells[:_LISTED]) + (", ..." if len(cells) > _LISTED else "")


def _pair(
    row: str,
    role: str,
    base: tuple[Side, Mapping[int, ResultRecord]],
    candidate: tuple[Side, Mapping[int, ResultRecord]],
    rule: Rule,
) -> Pair:
    before, now = next(iter(base[1].values())), next(iter(candidate[1].values()))
    title = cell_title(role, before)
    shown = f"{row}: {title}" if row else title
    refuse_mismatch(shown, before.cell, now.cell, seeds_count=rule.unit != "attack_seeds")
    return Pair(row, role, title, measurement(*base, role), measurement(*candidate, role))


def cell_title(role: str, record: ResultRecord) -> str:
    """What a person reads for a cell, such as `R_id linf-8/255`."""
    threat = record.cell.threat if isinstance(record.cell, EvalCell) else None
    symbol = _HEADINGS.get(role.partition("@")[0], "robust" if threat is not None else "clean")
    return f"{symbol} {threat}" if threat is not None else symbol


def refuse_mismatch(what: str, base: AnyCell, candidate: AnyCell, *, seeds_count: bool = True) -> None:
    """Refuse two cells that ask different questions.

    Args:
        what: the cell, for the message.
        base: cell of the base.
        candidate: cell of the candidate.
        seeds_count: whether different evaluation seeds are different questions.

    Raises:
        MismatchError: they do; the message lists the fields with both values.
    """
    left, right = _question(base), _question(candidate)
    if not seeds_count:
        left.pop("seed", None)
        right.pop("seed", None)
    fields = [name for name in {**left, **right} if left.get(name) != right.get(name)]
    if fields:
        listed = "; ".join(f"{name} {_short(left.get(name))} -> {_short(right.get(name))}" for name in fields[:_LISTED])
        more = f"; and {len(fields) - _LISTED} more" if len(fields) > _LISTED else ""
        raise MismatchError(f"{what}: base and candidate answer different questions: {listed}{more}")


def _question(cell: AnyCell) -> dict[str, Any]:
    """What was asked, without the model, as dotted fields; where the data lies on this machine is no part of it."""
    written = cell.model_dump(mode="json", exclude={"model"}, context={"canonical": True})
    written["data"]["dataset"] = written["data"]["dataset"]["name"]
    return _flat("", written)


def _flat(place: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {name: leaf for key, inner in value.items() for name, leaf in _flat(f"{place}.{key}", inner).items()}
    if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        return _flat(place, {str(index): inner for index, inner in enumerate(value)})
    return {place.lstrip("."): value}


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 24 else text[:21] + "..."


def measurement(side: Side, records: Mapping[int, ResultRecord], role: str) -> Measurement:
    """One side of one cell.

    Args:
        side: where the records come from.
        records: the records by seed.
        role: role of the cell.

    Raises:
        CorruptRecordError: the records contradict themselves or each other.
    """
    first = next(iter(records.values()))
    robust = role.startswith("r_") or (role == ONE_RECORD and "robust" in evaluation_of(first).outcomes)
    domains, digest = domains_of(first), slice_digest(first)
    for record in records.values():
        if slice_digest(record) != digest or domains_of(record) != domains:
            raise CorruptRecordError(f"{side.name} {role}: the records of its seeds are about different examples")
    names, grouped = group_names(digest, len(domains), side.groups)
    seeds = sorted(records)
    right = np.array([outcome_of(records[seed], "robust" if robust else "clean") for seed in seeds], dtype=bool)
    return Measurement(Outcomes(tuple(seeds), right, domains, names, grouped, digest), doubts(records.values()))


def doubts(records: Any) -> frozenset[str]:
    """Codes of the reasons for doubt in eval records, those of severity `info` left out."""
    flags = (flag for record in records for flag in evaluation_of(record).flags)
    return frozenset(flag.code for flag in flags if flag.severity != "info")
