"""What a user means by BASE and CAND: rows in a store, a record, a baseline, or a checkpoint to be evaluated."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robusteval.cli.lookup import find_key, find_plan
from robusteval.cli.options import open_store, shortened

if TYPE_CHECKING:
    from robusteval.schema.plans import StoredPlan
    from robusteval.schema.records import ResultRecord
    from robusteval.scoring.sides import Side
    from robusteval.store.store import Store

GRAMMAR = (
    "give SUITE:ROW, SUITE, or the beginning of a key; STORE:: before it names another store; or the path of a store, "
    "a record, a baseline folder or a .safetensors checkpoint"
)


@dataclass(frozen=True)
class Context:
    """What the operands are read with.

    Attributes:
        store: the store of operands that name none.
        suite: suite for operands that are a whole store or a checkpoint, or None.
        device: device for checkpoints.
    """

    store: str
    suite: str | None
    device: str


def read_side(text: str, context: Context) -> Side:
    """Find what an operand means.

    Raises:
        UsageError: it means nothing, or `--suite` is missing.
        StoreError: what it means cannot be read.
    """
    from robusteval.schema.errors import UsageError

    if "::" in text:
        where, _, rest = text.partition("::")
        return _in_store(text, where, rest, context)
    path = Path(text)
    if path.suffix == ".safetensors":
        return _checkpoint(path, context)
    if path.suffix == ".json":
        return _file(path)
    if path.is_dir():
        from robusteval.scoring.baselines import load_baseline

        if any((path / part).is_dir() for part in ("plans", "records")):
            return _in_store(text, text, context.suite or "", context)
        baseline = load_baseline(path)
        if baseline is not None:
            return baseline.side(str(path))
        raise UsageError(f"{shortened(text)}: neither a store nor a baseline; {GRAMMAR}")
    return _in_store(text, context.store, text, context)


def _file(path: Path) -> Side:
    from robusteval.schema.errors import UsageError
    from robusteval.scoring.baseline_cell import decode_cell
    from robusteval.scoring.sides import Side, side_of_record
    from robusteval.store.envelope import decode_record

    try:
        blob = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error}); {GRAMMAR}") from None
    if _is_baseline(blob):
        cell = decode_cell(blob, str(path))
        codes = None if cell.groups is None else [str(code) for code in cell.groups]
        return Side(str(path), {"": {cell.role: {cell.seed: cell.record}}}, lambda _: codes)
    return side_of_record(str(path), decode_record(blob, str(path), "copy it again"), _groups_beside(path))


def _is_baseline(blob: bytes) -> bool:
    try:
        document: Any = json.loads(blob)
    except ValueError:
        return False
    return isinstance(document, dict) and "baseline" in document


def _groups_beside(path: Path) -> Any:
    """The id lists of the store that a record file lies in; every example stands alone if it lies in none."""
    root = path.resolve().parents[2] if len(path.resolve().parents) > 2 else None
    if root is not None and path.resolve().parent.parent.name == "records":
        return open_store(str(root)).groups
    return lambda _: None


def _in_store(shown: str, where: str, what: str, context: Context) -> Side:
    from robusteval.schema.errors import UsageError
    from robusteval.scoring.sides import side_of_record

    place = open_store(where)
    if not what:
        return _rows(shown, place, _only_plan(place, context), None)
    suite, _, row = what.rpartition(":") if ":" in what else (what, "", "")
    plan = find_plan(place, suite)
    if plan is not None:
        return _rows(shown, place, plan, row or None)
    if row:
        raise UsageError(f"{shortened(shown)!r}: {suite!r} is a key, which has no rows; {GRAMMAR}")
    return side_of_record(shown, place.get(find_key(place, what)), place.groups)


def _only_plan(place: Store, context: Context) -> StoredPlan:
    from robusteval.schema.errors import UsageError

    if context.suite is not None:
        plan = find_plan(place, context.suite)
        if plan is not None:
            return plan
    plans = place.plans()
    if len(plans) != 1:
        listed = ", ".join(f"{plan.suite}@{plan.version}" for plan in plans) or "none"
        raise UsageError(f"{place.uri} holds these suites: {listed}; choose one with --suite")
    return plans[0]


def _rows(shown: str, place: Store, plan: StoredPlan, row: str | None) -> Side:
    from robusteval.scoring.sides import side_of_plan

    records: dict[str, ResultRecord] = {}
    for entry in plan.rows:
        if row in (None, entry.label):
            for key in entry.cells.values():
                record = place.latest(key)
                if record is not None:
                    records[key] = record
    return side_of_plan(shown, plan, records, place.groups, row)


def _checkpoint(path: Path, context: Context) -> Side:
    from robusteval.schema.errors import UsageError
    from robusteval.schema.registry import load_target

    if context.suite is None:
        raise UsageError(f"{path}: a checkpoint is measured on a suite; choose one with --suite")
    evaluate = load_target("robusteval.api.evaluation:evaluate")
    found = evaluate(path, suite=context.suite, store=context.store, device=context.device)
    side: Side = found.side()
    return side
