"""Compare two models from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from robusteval.api.evaluation import evaluate
from robusteval.api.models import AnyModel
from robusteval.api.results import SuiteResults
from robusteval.schema.errors import UsageError
from robusteval.schema.params import checked_params
from robusteval.schema.records import ResultRecord
from robusteval.scoring.baselines import Baseline, load_baseline
from robusteval.scoring.sides import Side, compare_sides, side_of_record
from robusteval.scoring.verdicts import ModelComparison, Rule

Comparable = SuiteResults | Side | Baseline | ResultRecord | AnyModel
"""Results, a record, a baseline or its folder, or a model to be measured."""


def compare(
    base: Comparable,
    candidate: Comparable,
    *,
    margin: float | None = None,
    sensitivity: float = 0.02,
    alpha: float = 0.05,
    unit: str = "examples",
    cells: Sequence[str] | None = None,
    **measured: Any,
) -> ModelComparison:
    """Compare two models on the same examples, cell by cell, with Holm's correction.

    Args:
        base: results of `evaluate`, `run` or `load_results`, a record, the folder of a baseline, or a model.
        candidate: the same.
        margin: accept a drop of at most this fraction; by default none that is not noise.
        sensitivity: without a margin, the drop that the comparison must be able to see, as a fraction.
        alpha: share of false alarms over all cells.
        unit: source of the noise: `examples`, `attack_seeds` or `train_seeds`.
        cells: only these roles, such as `["r_id"]`.
        **measured: arguments of `evaluate`, where a side is a model.

    Raises:
        MismatchError: the two were asked different questions; the message lists the fields.
        UsageError: an argument makes no sense, or nothing can be compared.

    Examples:
        >>> import robusteval
        >>> first, second = (lambda images, at=at: images.reshape(-1, 768)[:, at : at + 10] for at in (0, 300))
        >>> found = robusteval.compare(first, second, n=20, cells=["a_id"], check_input=False)
        >>> found.verdict, found.cells[0].n
        ('inconclusive', 20)
    """
    written = {"margin": margin, "sensitivity": sensitivity, "alpha": alpha, "unit": unit}
    rule = checked_params("comparison", Rule, written)
    roles = None if cells is None else tuple(cells)
    sides = [_side(what, {**measured, "cells": cells}) for what in (base, candidate)]
    return compare_sides(sides[0], sides[1], rule, roles)


def _side(what: Comparable, measured: dict[str, Any]) -> Side:
    if isinstance(what, Side):
        return what
    if isinstance(what, SuiteResults | Baseline):
        return what.side()
    if isinstance(what, ResultRecord):
        return side_of_record(what.cell_key[:12], what)
    if isinstance(what, str | Path) and Path(what).is_dir():
        baseline = load_baseline(Path(what))
        if baseline is None:
            raise UsageError(f"{what}: holds no baseline; write one with: robusteval baseline save")
        return baseline.side()
    if isinstance(what, nn.Module | str | Path) or callable(what):
        return evaluate(what, **measured).side()
    raise UsageError(f"{type(what).__name__} cannot be compared; give results, a record, a baseline folder or a model")
