"""The train cells of one fold of a suite: rows and seeds, what they start from, what selects their weights."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from robusteval.planning import targets
from robusteval.planning.expanded import ExpandedCell
from robusteval.planning.inner_folds import InnerFolds
from robusteval.planning.loader import LoadedSuite
from robusteval.planning.ood import OpenedData
from robusteval.planning.starts import is_pretrained, pretrained_checkpoint, start_path
from robusteval.schema.cells import CellStart, DataSlice, ModelRef, TrainCell, WeightsStart
from robusteval.schema.digest import sha256_hex
from robusteval.schema.protocols import LEAVE_ONE_OUT
from robusteval.schema.specs import MethodSpec
from robusteval.schema.types import Component

_Left = tuple[str, ...]
"""Domains that a training does without so that it can select; empty for a training that is scored."""


class Trainings:
    """Builds train cells, each once.

    Args:
        suite: the suite, of one fold.
        whole: the suite before it was taken apart into folds.
        fold: name of the fold.

    Attributes:
        cells: key to cell, each after those it needs.
        weights: start checkpoints by SHA-256.
        data: the training data.
    """

    def __init__(self, suite: LoadedSuite, whole: LoadedSuite, fold: str) -> None:
        self.suite = suite
        self.fold = fold
        self.spec = suite.spec
        self.cells: dict[str, ExpandedCell] = {}
        self.weights: dict[str, Path] = {}
        self.data = OpenedData(self.spec.train.data, suite.dataset)
        self._rows = {method.row: method for method in self.spec.methods}
        self._shared_architecture = targets.resolve_architecture(self.spec.train.architecture)
        self._inner = InnerFolds(whole, self.spec.train.domains)
        self._known: dict[tuple[str, int, _Left], tuple[TrainCell, str]] = {}

    def of(self, method: MethodSpec, seed: int) -> tuple[TrainCell, str]:
        """The cell that trains a row with a seed, and its key."""
        return self._cell(method, seed, ())

    def words(self, method: MethodSpec, seed: int) -> str:
        """What titles call a row with a seed."""
        return f"{method.row} seed {seed}" + (f" [{self.fold}]" if self.fold else "")

    def _cell(self, method: MethodSpec, seed: int, left_out: _Left) -> tuple[TrainCell, str]:
        if not targets.registry("method").load(method.method).trains:
            left_out = ()
        known = self._known.get((method.row, seed, left_out))
        if known is None:
            known = self._known[method.row, seed, left_out] = self._built(method, seed, left_out)
        return known

    def _built(self, method: MethodSpec, seed: int, left_out: _Left) -> tuple[TrainCell, str]:
        component = self._method(method, left_out)
        target = targets.registry("method").load(method.method)
        data = self._slice(target, left_out)
        cell = TrainCell(
            data=data,
            architecture=self._architecture(method),
            method=component,
            protocol=target.protocol,
            start=self._start(method, seed, left_out),
            seed=seed,
            watched=self._inner.watched(left_out) if left_out else (),
            selected_by=self._selected_by(method, seed) if component.params.get("select") == LEAVE_ONE_OUT else {},
        )
        params: Any = targets.params_of(target).model_validate(component.params)
        seen = params.iterations * params.batch_size if params.iterations else params.epochs * data.n
        title = f"{method.row} seed {seed} without {' and '.join(left_out)}: train, for selection"
        item = ExpandedCell(
            cell=cell,
            key=cell.key,
            title=title if left_out else f"{self.words(method, seed)}: train",
            label=method.row,
            method=method.method,
            seed=seed,
            role="selection" if left_out else "train",
            needs=(*((cell.start.cell,) if isinstance(cell.start, CellStart) else ()), *cell.selected_by.values()),
            passes=round(sum(target.passes(params)) * seen),
            kind=f"train {method.row}",
            fold="" if left_out else self.fold,
        )
        self.cells.setdefault(item.key, item)
        return cell, item.key

    def _selected_by(self, method: MethodSpec, seed: int) -> dict[str, str]:
        domains = self.spec.train.domains
        return {domain: self._cell(method, seed, self._inner.left_out(domain))[1] for domain in domains}

    def _method(self, method: MethodSpec, left_out: _Left) -> Component:
        """The method with resolved parameters; a training that selects keeps its last weights.

        With `iterations`, where a batch holds equally many examples of each domain, it has as many of each as the
        scored training has.
        """
        component = targets.resolve_method(method.method, method.params)
        params = component.params
        if left_out and params.get("select") == LEAVE_ONE_OUT:
            params = params | {"select": "last"}
        if left_out and params.get("iterations"):
            domains = len(self.spec.train.domains)
            params = params | {"batch_size": params["batch_size"] // domains * (domains - 1)}
        return Component(name=component.name, params=params)

    @cached_property
    def _train_slice(self) -> DataSlice:
        return targets.make_slice(self.data.component, self.data.dataset, self.spec.train.domains, "train", None)

    def _slice(self, target: Any, left_out: _Left) -> DataSlice:
        if not target.trains:
            return targets.empty_slice(self.data.component, self.data.dataset, self.spec.train.domains)
        return self._inner.training_data(left_out) if left_out else self._train_slice

    def _architecture(self, method: MethodSpec) -> Component:
        own = method.architecture
        return self._shared_architecture if own is None else targets.resolve_architecture(own)

    def _start(self, method: MethodSpec, seed: int, left_out: _Left) -> ModelRef | None:
        if method.start is None:
            return None
        path: Path | None
        if is_pretrained(method, self._rows, self.suite.path):
            architecture, dataset = self._architecture(method), self.suite.dataset
            path = pretrained_checkpoint(method, self.suite.path, architecture, dataset, seed)
        else:
            path = start_path(method.start, self._rows, self.suite.path)
        if path is None:
            return CellStart(cell=self._cell(self._rows[method.start], seed, left_out)[1])
        digest = sha256_hex(path.read_bytes())
        self.weights[digest] = path
        return WeightsStart(weights=digest)
