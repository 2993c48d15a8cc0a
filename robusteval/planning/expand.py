"""From a checked suite to cells: every parameter resolved, every example named, every key known."""

from __future__ import annotations

from dataclasses import replace

from robusteval.planning import targets
from robusteval.planning.expanded import ExpandedCell, Expansion
from robusteval.planning.folds import folds_of
from robusteval.planning.loader import LoadedSuite
from robusteval.planning.measurements import Measurement, domains_of, measurements_of
from robusteval.planning.trainings import Trainings
from robusteval.schema.cells import CellStart, EvalCell, TrainCell
from robusteval.schema.digest import json_digest
from robusteval.schema.plans import AuditedRule, RowSeed, StoredPlan, audit_role
from robusteval.schema.protocols import LEAVE_ONE_OUT
from robusteval.schema.specs import MethodSpec, SuiteSpec


def expand(suite: LoadedSuite) -> Expansion:
    """Write out every cell of a suite.

    Raises:
        DataError: the data has too few examples for what the suite asks.
        UsageError: a parameter is wrong.
    """
    parts = [_Expander(part, suite, fold).expand() for fold, part in folds_of(suite).items()]
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


class _Expander:
    """The cells of one fold.

    Args:
        suite: the suite, of one fold.
        whole: the suite before it was taken apart into folds.
        fold: name of the fold.
    """

    def __init__(self, suite: LoadedSuite, whole: LoadedSuite, fold: str) -> None:
        self.suite = suite
        self.fold = fold
        self.spec = suite.spec
        self.trainings = Trainings(suite, whole, fold)
        self.cells: dict[str, ExpandedCell] = {}

    def expand(self) -> Expansion:
        measurements = measurements_of(self.suite, self.trainings.data)
        seeded = [(method, seed) for method in self.spec.methods for seed in self.spec.seeds]
        for method, seed in seeded:
            self.trainings.of(method, seed)
        rows = [self._row(method, seed, measurements) for method, seed in seeded]
        cells = (*self.trainings.cells.values(), *self.cells.values())
        return Expansion(self.spec, cells, self._stored(rows), dict(self.trainings.weights))

    def _row(self, method: MethodSpec, seed: int, measurements: list[Measurement]) -> RowSeed:
        train, train_key = self.trainings.of(method, seed)
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
                title=f"{self.trainings.words(method, seed)}: {what.words}",
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

    def _audited(
        self, train: TrainCell, train_key: str, measurements: list[Measurement]
    ) -> list[tuple[Measurement, CellStart]]:
        """The shifted half of the weights that the other selection rules would have kept.

        Under a protocol every run has them; selection by leave-one-domain-out always has.
        """
        select = train.method.params.get("select")
        others: tuple[AuditedRule, ...] = ("training-domain",) if select == "last" else ("last",)
        if select == LEAVE_ONE_OUT:
            others = ("last", "training-domain")
        elif self.suite.protocol is None or targets.registry("method").load(train.method.name).selects_itself:
            return []
        shifted = [what for what in measurements if what.role == "a_ood"]
        return [
            (replace(what, role=audit_role(rule)), CellStart(cell=train_key, checkpoint=rule))
            for what in shifted
            for rule in others
        ]

    def _stored(self, rows: list[RowSeed]) -> StoredPlan:
        return StoredPlan(
            suite=self.spec.name,
            version=self.spec.version,
            suite_digest=suite_digest(self.spec),
            summary=self.spec.summary,
            rows=tuple(rows),
            id_domains=domains_of(self.suite, "id"),
            ood_domains=domains_of(self.suite, "ood"),
            threats=tuple(one.threat for one in self.spec.evaluate.threats),
            unseen_threats=tuple(one.threat for one in self.spec.evaluate.unseen_threats),
            union=self.spec.score.union,
            pareto=self.spec.score.pareto,
            baseline=self.spec.score.baseline,
            protocol=self.suite.protocol,
        )
