"""One record in full, as names and values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robusteval.schema.records import ResultRecord


def facts_of(record: ResultRecord) -> list[tuple[str, str]]:
    """A record as names and values, the outcomes as counts."""
    cell, data, timing = record.cell, record.cell.data, record.timing
    what = cell.method if cell.kind == "train" else cell.evaluator
    facts = [
        ("status", record.status),
        ("method" if cell.kind == "train" else "evaluator", f"{what.name} {json.dumps(what.params)}"),
        ("data", f"{data.dataset.name} {data.split}: {', '.join(data.domains)} ({data.n} examples)"),
        ("seed", str(cell.seed)),
    ]
    if cell.kind == "eval":
        facts += [("threat", str(cell.threat or "none")), ("model", json.dumps(cell.model.model_dump(mode="json")))]
    else:
        start = cell.start.model_dump(mode="json") if cell.start is not None else "random weights"
        facts += [("architecture", f"{cell.architecture.name} {json.dumps(cell.architecture.params)}")]
        facts += [("start", json.dumps(start))]
    facts += _found(record)
    facts += [
        ("result digest", record.result_digest),
        ("started", f"{timing.started_at}, {timing.wall_s:.1f} s, {timing.peak_memory_mb:.0f} MB at most"),
        ("provenance", json.dumps(record.provenance.model_dump(mode="json"), indent=1)),
    ]
    return facts


def _found(record: ResultRecord) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    if record.evaluation is not None:
        for metric in record.evaluation.metrics:
            ends = f" [{metric.low:.4f}, {metric.high:.4f}] {metric.interval}" if metric.low is not None else ""
            facts.append((metric.name, f"{metric.value:.4f}{ends} (n={metric.n})"))
        for name, bits in record.evaluation.outcomes.items():
            facts.append((f"outcome {name}", f"{sum(bits.unpack())} of {bits.n}"))
        for flag in record.evaluation.flags:
            facts.append((f"flag {flag.code}", f"{flag.severity}: {flag.evidence}; {flag.next_step}"))
        facts.append(("passes", json.dumps(record.evaluation.budget.model_dump())))
        named = (("spec", record.evaluation.spec), ("details", record.evaluation.details))
        facts += [(name, value) for name, value in named if value is not None]
        if record.evaluation.images:
            again = f"robusteval replay {record.cell_key[:12]} verifies them"
            facts.append(("images", f"{len(record.evaluation.images)} files of adversarial images; {again}"))
    if record.training is not None:
        training = record.training
        facts += [
            ("weights", training.weights),
            ("selected", f"epoch {training.selected_epoch} of {len(training.history)}, by {training.selected_on}"),
            ("passes", json.dumps(training.budget.model_dump())),
            ("diagnostics", json.dumps(training.diagnostics)),
        ]
    if record.failure is not None:
        facts.append((f"failed in {record.failure.stage}", record.failure.traceback.rstrip()))
    return facts
