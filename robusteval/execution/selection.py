"""Selection by leave-one-domain-out in train cells: what a cell watches, what selects its weights, what that cost."""

from __future__ import annotations

from typing import Any

from robusteval.data.batches import DeviceSet
from robusteval.data.slices import load_slice
from robusteval.methods.base import Method
from robusteval.methods.leave_one_out import WATCHED, chosen_validation, keeping, watching
from robusteval.schema.cells import TrainCell
from robusteval.schema.errors import CellError
from robusteval.schema.protocols import LEAVE_ONE_OUT
from robusteval.schema.records import Budget, TrainingResult
from robusteval.store.store import Store


def with_selection(method: Method[Any], cell: TrainCell, store: Store, device: str) -> Method[Any]:
    """The method of a cell, with what the cell says about selection.

    Args:
        method: the method as its parameters say.
        cell: the cell.
        store: holds the results of the cells that select.
        device: where watched images go.

    Raises:
        CellError: the rule needs other cells and none is named, or one of them did not watch the domain.
        StoreError: a cell that selects has no result.
    """
    if cell.watched:
        return watching(method, {part.domains[0]: DeviceSet(load_slice(part), device) for part in cell.watched})
    if method.params.select != LEAVE_ONE_OUT:
        return method
    if not cell.selected_by:
        raise CellError(
            f"select: {LEAVE_ONE_OUT} needs a training without each domain; run it from a suite, which plans them"
        )
    return keeping(method, _chosen(cell, store))


def with_selection_told(result: TrainingResult, cell: TrainCell, store: Store) -> TrainingResult:
    """The result of a cell with the validation that was chosen by others, and the passes of all of them."""
    if not cell.selected_by:
        return result
    spent = result.selection_budget
    for key in cell.selected_by.values():
        found = _training(key, store)
        spent = _sum(spent, found.budget, found.selection_budget)
    return result.model_copy(update={"selection_budget": spent, "selected_epoch": _chosen(cell, store)})


def _chosen(cell: TrainCell, store: Store) -> int:
    accuracies = []
    for domain, key in cell.selected_by.items():
        watched = _training(key, store).diagnostics.get(WATCHED, {})
        if domain not in watched:
            raise CellError(f"cell {key[:12]} did not watch domain {domain!r}; run the suite again with --resume all")
        accuracies.append(watched[domain])
    return chosen_validation(accuracies)


def _training(key: str, store: Store) -> TrainingResult:
    training = store.get(key).training
    if training is None:
        raise CellError(f"cell {key[:12]} is not a train cell, so it selects nothing")
    return training


def _sum(*budgets: Budget) -> Budget:
    return Budget(
        forward=sum(one.forward for one in budgets),
        backward=sum(one.backward for one in budgets),
    )
