"""Comparing on fewer examples than a baseline has: the first ones of every domain, with which longer slices begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robusteval.api.evaluation import limited
from robusteval.api.results import ModelResults
from robusteval.planning.expand import expand
from robusteval.planning.loader import load_suite
from robusteval.schema.cells import EvalCell
from robusteval.schema.records import Bits, ResultRecord, result_digest
from robusteval.scoring.baseline_cell import BaselineCell, as_set
from robusteval.scoring.baselines import Baseline
from robusteval.scoring.outcomes import evaluation_of
from robusteval.scoring.sides import refuse_mismatch


def shortened(baseline: Baseline, results: ModelResults, suite: str | Path, n: int | None) -> Baseline:
    """The baseline on the examples of `results` only.

    Args:
        baseline: the whole baseline.
        results: measured on at most as many examples a domain.
        suite: the suite of both.
        n: examples a domain that the check asks for when nothing limits it.

    Raises:
        MismatchError: the baseline answers another question than the check without its limit.
    """
    expansion = expand(limited(load_suite(suite), n))
    by_key = {item.key: item.cell for item in expansion.cells}
    asked = {role: by_key[key] for role, key in expansion.stored.rows[0].cells.items()}
    measured = results.side().rows[results.name]
    cells = []
    for cell in baseline.cells:
        if cell.role in measured:
            refuse_mismatch(cell.cell, cell.record.cell, asked[cell.role], seeds_count=False)
            cells.append(_cut(cell, next(iter(measured[cell.role].values())).cell))
    return Baseline(baseline.folder, as_set(cells))


def _cut(cell: BaselineCell, wanted: Any) -> BaselineCell:
    record = cell.record
    assert isinstance(record.cell, EvalCell)
    evaluation = evaluation_of(record)
    each = wanted.data.per_domain or record.cell.data.n
    kept, start = [], 0
    for _, count in evaluation.domains:
        kept += list(range(start, start + min(each, count)))
        start += count
    outcomes = {name: Bits.pack([bits.unpack()[i] for i in kept]) for name, bits in evaluation.outcomes.items()}
    domains = tuple((name, min(each, count)) for name, count in evaluation.domains)
    short = evaluation.model_copy(update={"outcomes": outcomes, "domains": domains, "metrics": ()})
    asked = EvalCell.model_validate({**record.cell.model_dump(), "data": wanted.data.model_dump()})
    written = {
        **record.model_dump(),
        "cell": asked.model_dump(),
        "cell_key": asked.key,
        "evaluation": short.model_dump(),
        "result_digest": result_digest(asked.key, short, None),
    }
    groups = None if cell.groups is None else tuple(cell.groups[i] for i in kept)
    return cell.model_copy(update={"record": ResultRecord.model_validate(written), "groups": groups})
