"""Numbers of an entry computed again from its outcome bits, for comparison with what it says."""

from __future__ import annotations

import math
from collections.abc import Iterator

from robusteval.leaderboard.boards import Board, role_columns
from robusteval.leaderboard.entries import Entry, Value
from robusteval.schema.records import Evaluation, Metric, ResultRecord
from robusteval.scoring.outcomes import Groups, each_alone, read_outcomes

TOLERANCE = 1e-9
"""Largest difference between a stated and a recomputed number that rounding of sums can explain."""
_BASES = {"accuracy": "clean", "robust_accuracy": "robust"}


def column_values(board: Board, entry: Entry, groups: Groups = each_alone) -> dict[str, Value]:
    """Every column of the board that the records of an entry fill.

    Args:
        board: the board.
        entry: a measured entry.
        groups: from an ids digest to the group of each example.

    Raises:
        CorruptRecordError: a record contradicts itself, or the seeds were measured on different examples.
    """
    records = {record.cell_key: record for record in entry.records}
    found: dict[str, Value] = {}
    for role, column in role_columns(board):
        outcome = "robust" if column.startswith("r_") else "clean"
        outcomes = read_outcomes(entry.rows, role, outcome, records, groups, pooled=board.pooled(column))
        if outcomes is not None:
            estimate = outcomes.estimate()
            found[column] = Value(
                value=estimate.value,
                low=estimate.low,
                high=estimate.high,
                n=estimate.n,
                interval=estimate.interval,
            )
    return found


def metric_problems(record: ResultRecord) -> Iterator[str]:
    """What is wrong with the metrics and outcomes of a record, one line each.

    A metric whose name says that it is an accuracy must be the mean of its bits; others (`nll`, `ece`) rest on logits
    that an entry does not hold, and no column of a board shows them.
    """
    evaluation = record.evaluation
    if evaluation is None:
        return
    where = record.cell_key[:12]
    bits = {name: packed.unpack() for name, packed in evaluation.outcomes.items()}
    for name, flags in bits.items():
        if len(flags) != record.cell.data.n:
            yield f"record {where}: outcome {name!r} has {len(flags)} bits, its slice {record.cell.data.n} examples"
            return
    for metric in evaluation.metrics:
        stated = _stated(metric, evaluation, bits)
        if stated is None:
            continue
        expected, n = stated
        if abs(metric.value - expected) > TOLERANCE or metric.n != n:
            yield (
                f"record {where}: metric {metric.name!r} is {metric.value:.6g} (n={metric.n}), "
                f"its outcome bits say {expected:.6g} (n={n})"
            )
        if metric.low is not None and metric.high is not None and not metric.low <= metric.value <= metric.high:
            yield f"record {where}: metric {metric.name!r} lies outside its own interval"
    robust = bits.get("robust", [])
    for name, flags in bits.items():
        wrong = sum(stands and not right for stands, right in zip(robust, flags, strict=False))
        if wrong:
            yield f"record {where}: {wrong} examples count as robust, but outcome {name!r} says they fell"


def _stated(metric: Metric, evaluation: Evaluation, bits: dict[str, list[bool]]) -> tuple[float, int] | None:
    """The mean and the count that a metric claims to be; None if it is no mean of outcome bits."""
    base, _, part = metric.name.partition("/")
    if base.startswith("accuracy_") and part in bits:
        return _mean(bits[part])
    kind = next((suffix for suffix in ("_macro", "_worst") if base.endswith(suffix)), "")
    flags = bits.get(_BASES.get(base.removesuffix(kind), ""))
    if flags is None:
        return None
    domains = dict(_by_domain(evaluation, flags))
    if not domains or (part and part not in domains):
        return None
    if kind == "_macro":
        return math.fsum(_mean(own)[0] for own in domains.values()) / len(domains), len(flags)
    if kind == "_worst" and not part:
        return min((_mean(own) for own in domains.values()), key=lambda found: found[0])
    return _mean(domains[part]) if part else _mean(flags)


def _by_domain(evaluation: Evaluation, flags: list[bool]) -> Iterator[tuple[str, list[bool]]]:
    start = 0
    for name, count in evaluation.domains:
        if count:
            yield name, flags[start : start + count]
        start += count


def _mean(flags: list[bool]) -> tuple[float, int]:
    return (sum(flags) / len(flags) if flags else math.nan), len(flags)
