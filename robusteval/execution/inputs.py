"""What a run puts into a store before anything is computed, so that the store alone explains its results."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

from robusteval.planning.plan import Plan
from robusteval.schema.cells import DataSlice
from robusteval.schema.errors import CheckpointError, CorruptRecordError, RobustevalError, StoreError, UsageError
from robusteval.schema.plans import StoredPlan
from robusteval.schema.registry import load_target
from robusteval.store.store import Store


def refuse_namesake(plan: Plan, place: Store, suite: str) -> None:
    """Refuse to take the place of another suite's table that has the same name and version.

    Args:
        plan: what is about to run.
        place: the store.
        suite: what the user called the suite, for the message.

    Raises:
        UsageError: the store has such a suite.
    """
    try:
        there = place.get_plan(plan.suite, plan.version)
    except CorruptRecordError:
        return  # running the suite writes it anew
    # Cells may change under an unchanged suite (data, protocols), and a moved folder changes no cell.
    unseen = {"suite_digest": "0" * 64, "created_at": None, "summary": ""}
    if there is None or there.suite_digest == plan.stored.suite_digest:
        return
    if there.model_copy(update=unseen) != plan.stored.model_copy(update=unseen):
        raise UsageError(
            f"{suite}: the store has another suite called {plan.suite} version {plan.version}; change 'name', raise "
            f"'version', or use another store (robusteval run --replace-plan shows this one from now on)"
        )


def put_inputs(plan: Plan, place: Store) -> None:
    """Store the start checkpoints and the plan, and the id lists of finished cells that are damaged or missing.

    Raises:
        UnreachableError: something is to be run, and its result could not be stored.
        CheckpointError: a checkpoint changed since the plan was made.
    """
    if any(cell.state != "done" for cell in plan.cells):
        place.check_writable()
    for digest, path in plan.weights.items():
        if place.put_artefact(path.read_bytes()) != digest:
            raise CheckpointError(f"{path}: changed while the suite was read; run again")
    _put_plan(plan.stored, place)
    measured = [cell.cell.data for cell in plan.cells if cell.state == "done" and cell.cell.kind == "eval"]
    for data in {data.ids_digest: data for data in measured}.values():
        _restore_ids(data, place)


def _put_plan(plan: StoredPlan, place: Store) -> None:
    """Store a plan unless it is there already, so that a finished store on a read-only disk can be run again."""
    try:
        stored = place.get_plan(plan.suite, plan.version)
    except CorruptRecordError:
        stored = None
    if stored is None or stored.model_copy(update={"created_at": plan.created_at}) != plan:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        place.put_plan(plan.model_copy(update={"created_at": created}))


def _restore_ids(data: DataSlice, place: Store) -> None:
    try:
        place.groups(data.ids_digest)
    except StoreError:
        # If the data or the disk does not allow it, reading the scores names the list.
        with contextlib.suppress(RobustevalError, OSError):
            load_target("robusteval.execution.work:restore_ids")(data, place)
