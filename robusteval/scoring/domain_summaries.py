"""What a column looks like across its domains: the worst of them, and where the spread comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from robusteval.schema.plans import RowSeed
from robusteval.schema.specs import Cell
from robusteval.scoring.outcomes import CONFIDENCE, Outcomes, Records
from robusteval.scoring.results import DomainScore, Estimate, Side, Worst
from robusteval.scoring.spread import Spread
from robusteval.stats.components import crossed_components
from robusteval.stats.intervals import simultaneous_low

_COLUMNS: tuple[tuple[Cell, Side, str], ...] = (
    ("a_id", "id", "clean"),
    ("r_id", "id", "robust"),
    ("a_ood", "ood", "clean"),
    ("r_ood", "ood", "robust"),
)


def worst_domains(domains: Sequence[DomainScore]) -> dict[Cell, Worst]:
    """Domain with the lowest accuracy in each column, and a bound that holds whichever it is."""
    worst: dict[Cell, Worst] = {}
    for column, side, kind in _COLUMNS:
        found: dict[str, Estimate] = {
            entry.domain: estimate
            for entry in domains
            if entry.side == side and (estimate := getattr(entry, kind)) is not None
        }
        if not found:
            continue
        name = min(found, key=lambda domain: found[domain].value)
        bounds = [simultaneous_low(one.value, one.n_effective, len(found), CONFIDENCE) for one in found.values()]
        lowest = found[name]
        worst[column] = Worst(
            domain=name, value=lowest.value, low=lowest.low, high=lowest.high, simultaneous_low=min(bounds)
        )
    return worst


def calibration_errors(rows: Sequence[RowSeed], role: str, records: Records) -> dict[str, float]:
    """Domain to its calibration error, mean over the seeds of one row that have it; named as outcomes name domains."""
    several = len({row.fold for row in rows}) > 1
    found: dict[str, list[float]] = {}
    for row in rows:
        record = records.get(row.cells.get(role, ""))
        if record is None or record.evaluation is None:
            continue
        metrics = {metric.name: metric.value for metric in record.evaluation.metrics}
        for name, _ in record.evaluation.domains:
            value = metrics.get(f"ece/{name}")
            shown = f"{name} [{row.fold}]" if several and name != row.fold else name
            if value is not None:
                found.setdefault(shown, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in found.items()}


def spreads(found: Mapping[Cell, Outcomes | None]) -> dict[Cell, Spread]:
    """Split and seed components of the columns that have two domains and two seeds."""
    parts: dict[Cell, Spread] = {}
    for column, outcomes in found.items():
        if outcomes is None:
            continue
        table = [
            list(part.per_seed().values())
            for domain in dict.fromkeys(outcomes.domains)
            if (part := outcomes.of_domain(domain)) is not None
        ]
        components = crossed_components(table)
        if components is not None:
            parts[column] = Spread(
                splits=len(table),
                seeds=len(outcomes.seeds),
                split_sd=math.sqrt(components.rows),
                seed_sd=math.sqrt(components.columns),
                rest_sd=math.sqrt(components.rest),
            )
    return parts
