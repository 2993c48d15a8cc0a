"""One regression check: measure the model, find the baseline, compare, and say how to accept what was found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robusteval.api.evaluation import evaluate
from robusteval.api.fast_gating import FastResult, fast_gate
from robusteval.api.models import AnyModel
from robusteval.api.results import ModelResults
from robusteval.schema.errors import RobustevalError, UsageError, unknown_name
from robusteval.schema.params import checked_params
from robusteval.scoring.baseline_cell import BaselineCell
from robusteval.scoring.baseline_evidence import prune_evidence, write_evidence
from robusteval.scoring.baselines import (
    Baseline,
    forget_obtained,
    load_baseline,
    write_baseline,
    write_obtained,
)
from robusteval.scoring.sides import MismatchError, compare_sides
from robusteval.scoring.verdict_text import to_text
from robusteval.scoring.verdicts import ModelComparison, Rule
from robusteval.testing.limits import shortened

_RULE = ("margin", "sensitivity", "alpha", "unit")
_MEASURED = ("n", "device", "name", "mean", "std", "value_range", "seeds", "check_input")
_DECLARED = ("mean", "std", "value_range", "device")
_ANOTHER = "accept a new one with pytest --robusteval-update, or give this check another baseline"


class RejectedError(RobustevalError):
    """The check fails; the message is what the test shows.

    Attributes:
        comparison: what was found, if it came to a comparison.
    """

    def __init__(self, text: str, comparison: ModelComparison | None = None) -> None:
        super().__init__(text)
        self.comparison = comparison


@dataclass(frozen=True)
class CheckOptions:
    """What the session says.

    Attributes:
        update: `yes` or `force` to accept what is found, None to compare.
        only_stored: never compute.
        limit: at most so many examples a domain.
        strict: inconclusive fails.
    """

    update: str | None = None
    only_stored: bool = False
    limit: int | None = None
    strict: bool = False


@dataclass(frozen=True)
class Check:
    """What the test says.

    Attributes:
        folder: folder of the baseline.
        store: folder of results.
        suite: name or path of the suite.
        cells: roles, None for all.
        rule: what counts as a regression.
        measured: further arguments of `evaluate`.
    """

    folder: Path
    store: Path
    suite: str | Path
    cells: tuple[str, ...] | None
    rule: Rule
    measured: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, baselines: Path, store: Path, written: Mapping[str, Any]) -> Check:
        """Read the arguments of a check.

        Raises:
            UsageError: an unknown argument or a value that makes no sense.
        """
        known = ("suite", "baseline", "cells", *_RULE, *_MEASURED)
        for name in written:
            if name not in known:
                raise UsageError(unknown_name("argument of robusteval_check", name, known))
        name = str(written["baseline"])
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+@=-]{0,79}", name):
            raise UsageError(f"baseline {name!r}: a baseline is a folder; use letters, digits, dots and dashes")
        cells = written.get("cells")
        return cls(
            folder=baselines / name,
            store=store,
            suite=written.get("suite", "digits"),
            cells=None if cells is None else (cells,) if isinstance(cells, str) else tuple(cells),
            rule=checked_params("robusteval_check", Rule, {key: written[key] for key in _RULE if key in written}),
            measured={key: written[key] for key in _MEASURED if key in written},
        )

    @property
    def save(self) -> str:
        """The command that accepts what was found."""
        return f"robusteval baseline save {self.folder.name} --dir {self.folder.parent}"


def run_check(check: Check, model: AnyModel, options: CheckOptions, *, asserting: bool) -> ModelComparison:
    """Compare a model with its baseline.

    Args:
        check: what the test says.
        model: the model.
        options: what the session says.
        asserting: whether a bad verdict is an error.

    Raises:
        RejectedError: there is no baseline yet, or the verdict is bad and `asserting`.
        RobustevalError: the baseline is damaged or answers another question, or the model cannot be measured.
    """
    if options.update is not None and options.limit is not None:
        raise UsageError("--robusteval-update with --robusteval-limit would accept a baseline of fewer examples")
    seen = None if options.update == "force" else load_baseline(check.folder)
    limit = options.limit
    # Whoever has a baseline declared the input once and for all; a model that lost accuracy since is a regression.
    measured = {"check_input": seen is None or options.update is not None, **check.measured}
    if limit is not None:
        measured["n"] = min(limit, measured.get("n") or limit)
    results = evaluate(
        model, check.suite, cells=check.cells, store=check.store, only_stored=options.only_stored, **measured
    )
    cells = results.baseline_cells(check.folder.name)
    if options.update is not None:
        return _accept(check, results, cells, seen, force=options.update == "force")
    wanted = _of_the_same_model(check, seen, cells, results)
    try:
        if limit is not None:
            wanted = shortened(wanted, results, check.suite, check.measured.get("n"))
        comparison = compare_sides(wanted.side(), results.side(), check.rule, check.cells)
    except MismatchError as error:
        raise MismatchError(f"baseline {check.folder.name!r}: {error}; {_ANOTHER}") from None
    if asserting:
        _judge(check, comparison, results, options)
    return comparison


def run_fast_check(check: Check, model: AnyModel, *, cell: str, passes: int) -> FastResult:
    """Look for a loss of robustness in one attacked cell, within a budget of passes.

    Args:
        check: what the test says.
        model: the model.
        cell: role of the cell.
        passes: forward and backward passes an example, on average.

    Raises:
        RejectedError: the model regressed.
        RobustevalError: see `robusteval.fast_gate`.
    """
    rule = {name: getattr(check.rule, name) for name in ("margin", "sensitivity", "alpha")}
    declared = {key: value for key, value in check.measured.items() if key in _DECLARED}
    found = fast_gate(model, check.folder, check.suite, cell=cell, passes=passes, store=check.store, **rule, **declared)
    if found.verdict == "regressed":
        raise RejectedError(str(found), found.comparison)
    return found


def _accept(
    check: Check, results: ModelResults, cells: tuple[BaselineCell, ...], seen: Baseline | None, *, force: bool
) -> ModelComparison:
    if force:
        try:
            seen = load_baseline(check.folder)
        except RobustevalError:
            seen = None
    write_evidence(check.folder, cells, results.store)
    written = write_baseline(check.folder, cells, seen, force=force, partial=check.cells is not None)
    return compare_sides(written.side(), results.side(), check.rule, check.cells)


def _of_the_same_model(
    check: Check, baseline: Baseline | None, cells: tuple[BaselineCell, ...], results: ModelResults
) -> Baseline:
    """The baseline, if it has all cells and is about the same kind of model.

    Raises:
        RejectedError: it lacks a cell; what was found is written beside it.
        MismatchError: it is about another kind of model, or has cells that were not measured.
    """
    partial = check.cells is not None
    stems = {cell.stem for cell in cells}
    there = set() if baseline is None else {cell.stem for cell in baseline.cells}
    if baseline is None or not stems <= there:
        _leave_obtained(check, cells, results)
        lacking = ", ".join(sorted(stems - there))
        raise RejectedError(
            f"there is no baseline {check.folder.name!r} for {lacking} yet; what was found is in {check.folder} as "
            f"*.obtained.json; look at it, then accept it with: {check.save} (or pytest --robusteval-update)"
        )
    family = results.family
    problems = [f"family {baseline.family} -> {family}"] if baseline.family != family else []
    if not partial and there - stems:
        problems.append(f"cells {', '.join(sorted(there))} -> {', '.join(sorted(stems))}")
    if problems:
        what = f"baseline {check.folder.name!r} is not about what was measured: {'; '.join(problems)}"
        raise MismatchError(f"{what}; {_ANOTHER}")
    return baseline


def _leave_obtained(check: Check, cells: tuple[BaselineCell, ...], results: ModelResults) -> None:
    """Leave what was found, with everything that accepting it needs."""
    write_evidence(check.folder, cells, results.store)
    write_obtained(check.folder, cells, partial=check.cells is not None)


def _judge(check: Check, comparison: ModelComparison, results: ModelResults, options: CheckOptions) -> None:
    if not comparison.failed(strict=options.strict):
        if check.cells is None:
            forget_obtained(check.folder)
            accepted = load_baseline(check.folder)
            prune_evidence(check.folder, () if accepted is None else accepted.cells)
        return
    text = to_text(comparison)
    if comparison.failed() and options.limit is None:
        _leave_obtained(check, results.baseline_cells(check.folder.name), results)
        force = " --force" if comparison.verdict == "suspect" else ""
        text += f"\n\nIf this is what you want, accept it with: {check.save}{force}"
    raise RejectedError(text, comparison)
