"""From a checked suite to cells: every parameter resolved, every example named, every key known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from robusteval.planning import targets
from robusteval.planning.folds import folds_of
from robusteval.planning.loader import LoadedSuite
from robusteval.planning.ood import OpenedData
from robusteval.planning.starts import is_pretrained, pretrained_checkpoint, start_path
from robusteval.schema.cells import CellStart, DataSlice, EvalCell, ModelRef, TrainCell, WeightsStart
from robusteval.schema.digest import json_digest, sha256_hex
from robusteval.schema.plans import RowSeed, StoredPlan, audit_role, role_of, unseen_role
from robusteval.schema.specs import Cell, MethodSpec, SliceSpec, SuiteSpec, ThreatSpec
from robusteval.schema.threats import Threat
from robusteval.schema.types import Component


@dataclass(frozen=True)
class ExpandedCell:
    """A cell and what the suite calls it.

    Attributes:
        cell: the unit of work.
        key: its key.
        title: such as `rift seed 0: train`.
        label: row of the table.
        method: method of the row.
        seed: training seed of the row.
        role: `train`, or the role in the table (`a_id`, `r_ood@0`).
        needs: keys of the cells whose model it starts from or measures.
        passes: estimated forward plus backward passes of single examples.
        kind: cells of one kind take about the same time.
        fold: domain that is apart, in a suite with folds.
    """

    cell: TrainCell | EvalCell
    key: str
    title: str
    label: str
    method: str
    seed: int
    role: str
    needs: tuple[str, ...]
    passes: int
    kind: str
    fold: str = ""

    @property
    def evaluator(self) -> str:
        """Name of the evaluator; `train` for a train cell."""
        return self.cell.evaluator.name if isinstance(self.cell, EvalCell) else "train"


@dataclass(frozen=True)
class Expansion:
    """All cells of a suite.

    Attributes:
        spec: the suite.
        cells: train cells in an order in which each comes after its start, then eval cells; no key twice.
        stored: which cell plays which role, as the store keeps it.
        weights: start checkpoints that must be in the store before the run, by SHA-256.
    """

    spec: SuiteSpec
    cells: tuple[ExpandedCell, ...]
    stored: StoredPlan
    weights: Mapping[str, Path] = field(default_factory=dict)

    @property
    def levels(self) -> tuple[tuple[ExpandedCell, ...], ...]:
        """Train cells by how many other train cells come before them: those of one level are independent."""
        depth: dict[str, int] = {}
        levels: list[list[ExpandedCell]] = []
        for item in self.cells:
            if isinstance(item.cell, TrainCell):
                depth[item.key] = 1 + max((depth[need] for need in item.needs), default=-1)
                levels += [[] for _ in range(depth[item.key] + 1 - len(levels))]
                levels[depth[item.key]].append(item)
        return tuple(tuple(level) for level in levels)


def expand(suite: LoadedSuite) -> Expansion:
    """Write out every cell of a suite.

    Raises:
        DataError: the data has too few examples for what the suite asks.
        UsageError: a parameter is wrong.
    """
    parts = [_Expander(part, fold).expand() for fold, part in folds_of(suite).items()]
    if len(parts) == 1:
        return parts[0]
    cells = {item.key: item for part in parts for item in part.cells}
    first = parts[0].stored
    stored = first.model_copy(
        update={
            "rows": tuple(row for part in parts for row in part.stored.rows),
            "suite_digest": suite_digest(suite.spec),
            "id_domains": suite.spec.train.domains,
            "ood_domains": suite.spec.train.domains,
        }
    )
    ordered = sorted(cells.values(), key=lambda item: isinstance(item.cell, EvalCell))
    weights = {digest: path for part in parts for digest, path in part.weights.items()}
    return Expansion(suite.spec, tuple(ordered), stored, weights)


def suite_digest(spec: SuiteSpec) -> str:
    """Digest of what a suite says."""
    return json_digest(spec.model_dump(mode="json", context={"canonical": True}))


@dataclass(frozen=True)
class _Measurement:
    """One eval cell per model: role, slice, evaluator and threat."""

    role: str
    data: DataSlice
    evaluator: Component
    protocol: int
    threat: Threat | None
    passes: int


class _Expander:
    def __init__(self, suite: LoadedSuite, fold: str) -> None:
        self.suite = suite
        self.fold = fold
        self.spec = suite.spec
        self.dataset = suite.dataset
        self.cells: dict[str, ExpandedCell] = {}
        self.weights: dict[str, Path] = {}
        self.rows = {method.row: method for method in self.spec.methods}
        self.classes = len(suite.dataset.classes)
        self.architecture = targets.resolve_architecture(self.spec.train.architecture)
        self.trained_on = OpenedData(self.spec.train.data, suite.dataset)
        self._models: dict[tuple[str, int], tuple[TrainCell, str]] = {}

    def expand(self) -> Expansion:
        measurements = self._measurements()
        seeded = [(method, seed) for method in self.spec.methods for seed in self.spec.seeds]
        for method, seed in seeded:
            self._train(method, seed)
        rows = [self._row(method, seed, measurements) for method, seed in seeded]
        return Expansion(self.spec, tuple(self.cells.values()), self._stored(rows), dict(self.weights))

    @cached_property
    def train_slice(self) -> DataSlice:
        return _slice(self.trained_on, self.spec.train.domains, "train", None)

    # -- models ----------------------------------------------------------------------------------------------------

    def _train(self, method: MethodSpec, seed: int) -> tuple[TrainCell, str]:
        known = self._models.get((method.row, seed))
        if known is not None:
            return known
        component = targets.resolve_method(method.method, method.params)
        target = targets.registry("method").load(method.method)
        start = self._start(method, seed)
        data = self.train_slice if target.trains else self._no_examples()
        cell = TrainCell(
            data=data,
            architecture=self._architecture(method),
            method=component,
            protocol=target.protocol,
            start=start,
            seed=seed,
        )
        params: Any = targets.params_of(target).model_validate(component.params)
        per_example = sum(target.passes(params))
        seen = params.iterations * params.batch_size if params.iterations else params.epochs * data.n
        item = ExpandedCell(
            cell=cell,
            key=cell.key,
            title=f"{self._row_words(method, seed)}: train",
            label=method.row,
            method=method.method,
            seed=seed,
            role="train",
            needs=(start.cell,) if isinstance(start, CellStart) else (),
            passes=round(per_example * seen),
            kind=f"train {method.row}",
            fold=self.fold,
        )
        self.cells.setdefault(item.key, item)
        self._models[method.row, seed] = (cell, item.key)
        return cell, item.key

    def _no_examples(self) -> DataSlice:
        trained = self.trained_on
        return targets.empty_slice(trained.component, trained.dataset, self.spec.train.domains)

    def _architecture(self, method: MethodSpec) -> Component:
        own = method.architecture
        return self.architecture if own is None else targets.resolve_architecture(own)

    def _start(self, method: MethodSpec, seed: int) -> ModelRef | None:
        if method.start is None:
            return None
        path: Path | None
        if is_pretrained(method, self.rows, self.suite.path):
            path = pretrained_checkpoint(method, self.suite.path, self._architecture(method), self.dataset, seed)
        else:
            path = start_path(method.start, self.rows, self.suite.path)
        if path is None:
            return CellStart(cell=self._train(self.rows[method.start], seed)[1])
        digest = sha256_hex(path.read_bytes())
        self.weights[digest] = path
        return WeightsStart(weights=digest)

    # -- measurements ----------------------------------------------------------------------------------------------

    def _domains(self, half: Literal["id", "ood"]) -> tuple[str, ...]:
        spec: SliceSpec = getattr(self.spec.evaluate, half)
        if spec.domains is not None:
            return spec.domains
        trained = self.spec.train.domains
        if half == "id":
            return trained
        if self.suite.ood is not None:
            domains: tuple[str, ...] = self.suite.ood.dataset.domains
            return domains
        return tuple(name for name in self.dataset.domains if name not in trained)

    def _measurements(self) -> list[_Measurement]:
        found = []
        halves: tuple[tuple[Literal["id", "ood"], Cell, Cell, str], ...] = (
            ("id", "a_id", "r_id", "clean"),
            ("ood", "a_ood", "r_ood", "shift"),
        )
        for half, clean, robust, evaluator in halves:
            domains = self._domains(half)
            if not domains:
                continue
            spec: SliceSpec = getattr(self.spec.evaluate, half)
            opened = (self.suite.ood if half == "ood" else None) or self.trained_on
            shown = _slice(opened, domains, "test", spec.examples)
            found.append(self._measurement(role_of(clean), shown, evaluator, {}, None))
            attacked = _slice(opened, domains, "test", spec.robust_examples or spec.examples)
            for index, threat in enumerate(self.spec.evaluate.threats):
                found.append(self._robust(role_of(robust, index), attacked, threat))
            for index, threat in enumerate(self.spec.evaluate.unseen_threats if half == "id" else ()):
                found.append(self._robust(unseen_role(index), attacked, threat))
        return found

    def _robust(self, role: str, data: DataSlice, spec: ThreatSpec) -> _Measurement:
        threat = spec.threat
        attacks = [targets.resolve_attack(attack, threat).model_dump(mode="json") for attack in spec.attacks]
        params = {"attacks": attacks, "cascade": spec.cascade, "budget": spec.budget, "keep": spec.keep}
        return self._measurement(role, data, "adversarial", params, threat)

    def _measurement(
        self, role: str, data: DataSlice, name: str, params: dict[str, object], threat: Threat | None
    ) -> _Measurement:
        component = targets.resolve_evaluator(name, params)
        target = targets.registry("evaluator").load(name)
        checked = targets.params_of(target).model_validate(component.params)
        passes = sum(target.passes(checked, self.classes)) * data.n
        return _Measurement(role, data, component, target.protocol, threat, passes)

    # -- rows ------------------------------------------------------------------------------------------------------

    def _row(self, method: MethodSpec, seed: int, measurements: list[_Measurement]) -> RowSeed:
        train, train_key = self._models[method.row, seed]
        roles: dict[str, str] = {}
        wanted = [(what, CellStart(cell=train_key)) for what in measurements]
        wanted += self._audited(train, train_key, measurements)
        for what, model in wanted:
            cell = EvalCell(
                model=model,
                data=what.data,
                evaluator=what.evaluator,
                protocol=what.protocol,
                threat=what.threat,
                seed=self.spec.evaluate.seed,
            )
            item = ExpandedCell(
                cell=cell,
                key=cell.key,
                title=f"{self._row_words(method, seed)}: {_role_words(what.role, what.threat)}",
                label=method.row,
                method=method.method,
                seed=seed,
                role=what.role,
                needs=(train_key,),
                passes=what.passes,
                kind=what.role,
                fold=self.fold,
            )
            self.cells.setdefault(item.key, item)
            roles[what.role] = item.key
        return RowSeed(
            label=method.row,
            method=method.method,
            seed=seed,
            fold=self.fold,
            train_key=train_key,
            start_train_key=train.start.cell if isinstance(train.start, CellStart) else None,
            cells=roles,
        )

    def _row_words(self, method: MethodSpec, seed: int) -> str:
        return f"{method.row} seed {seed}" + (f" [{self.fold}]" if self.fold else "")

    def _audited(
        self, train: TrainCell, train_key: str, measurements: list[_Measurement]
    ) -> list[tuple[_Measurement, CellStart]]:
        """Under a protocol, the shifted half of the weights that the other selection rule would have kept."""
        if self.suite.protocol is None or targets.registry("method").load(train.method.name).selects_itself:
            return []
        rule: Literal["last", "training-domain"]
        rule = "training-domain" if train.method.params["select"] == "last" else "last"
        other = CellStart(cell=train_key, checkpoint=rule)
        return [(replace(what, role=audit_role(rule)), other) for what in measurements if what.role == "a_ood"]

    def _stored(self, rows: list[RowSeed]) -> StoredPlan:
        return StoredPlan(
            suite=self.spec.name,
            version=self.spec.version,
            suite_digest=suite_digest(self.spec),
            summary=self.spec.summary,
            rows=tuple(rows),
            id_domains=self._domains("id"),
            ood_domains=self._domains("ood"),
            threats=tuple(one.threat for one in self.spec.evaluate.threats),
            unseen_threats=tuple(one.threat for one in self.spec.evaluate.unseen_threats),
            union=self.spec.score.union,
            pareto=self.spec.score.pareto,
            baseline=self.spec.score.baseline,
            protocol=self.suite.protocol,
        )


def _slice(
    data: OpenedData, domains: tuple[str, ...], split: Literal["train", "test"], per_domain: int | None
) -> DataSlice:
    return targets.make_slice(data.component, data.dataset, domains, split, per_domain)


def _role_words(role: str, threat: Threat | None) -> str:
    if role.startswith("a_ood:"):
        return f"shifted, weights by {role.partition(':')[2]}"
    halves = {"a_id": "clean", "a_ood": "shifted", "r_id": "attacked", "r_ood": "attacked, shifted"}
    words = halves.get(role.partition("@")[0], "unseen threat")
    return f"{words} ({threat})" if threat is not None else words
