"""Synthetic suite runs written through the real schema classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from robusteval.schema.cells import CellStart, DataSlice, EvalCell, ModelRef, TrainCell
from robusteval.schema.digest import ids_digest, sha256_hex
from robusteval.schema.plans import RowSeed, StoredPlan
from robusteval.schema.records import (
    Bits,
    Budget,
    Evaluation,
    Failure,
    Flag,
    Metric,
    Provenance,
    ResultRecord,
    Timing,
    TrainingResult,
    result_digest,
)
from robusteval.schema.types import Component, Epsilon, ThreatModel

PROVENANCE = Provenance(robusteval_version="0", packages={}, python="3.11", platform="test", device="cpu", threads=1)
TIMING = Timing(started_at="2025-01-01T00:00:00Z", wall_s=12.0)


def slice_of(domains: Sequence[str], per_domain: int) -> tuple[DataSlice, list[str]]:
    """A slice, and the source image of every example in it."""
    ids = [f"{domain}/{index}" for domain in domains for index in range(per_domain)]
    data = DataSlice(
        dataset=Component(name="synthetic"),
        revision="1",
        domains=tuple(domains),
        split="test",
        per_domain=per_domain,
        n=len(ids),
        ids_digest=ids_digest(ids),
    )
    return data, [name.split("/")[1] for name in ids]


@dataclass
class World:
    """Records of one run, and what the plan says about them."""

    id_domains: tuple[str, ...] = ("upright",)
    ood_domains: tuple[str, ...] = ("rotated", "inverted")
    clean_n: int = 40
    robust_n: int = 20
    threats: tuple[ThreatModel, ...] = (ThreatModel(epsilon=Epsilon("0.1")),)
    records: dict[str, ResultRecord] = field(default_factory=dict)
    sources: dict[str, list[str]] = field(default_factory=dict)
    rows: list[RowSeed] = field(default_factory=list)

    def train(
        self, name: str, seed: int, passes: int = 40, start: str | None = None, weights: ModelRef | None = None
    ) -> str:
        """Add a finished training cell and return its key."""
        data, _ = slice_of(self.id_domains, 100)
        cell = TrainCell(
            data=data,
            architecture=Component(name="small-cnn"),
            method=Component(name=name),
            protocol=1,
            start=CellStart(cell=start) if start else weights,
            seed=seed,
        )
        training = TrainingResult(
            weights=sha256_hex(cell.key.encode()),
            budget=Budget(forward=passes * 50, backward=passes * 50),
            selection_budget=Budget(forward=200),
            n_examples=100,
            selected_on="last",
            selected_epoch=1,
            history=(),
        )
        return self._keep(cell, training=training)

    def measure(
        self,
        train_key: str,
        side: str,
        outcomes: Mapping[str, Sequence[bool]],
        threat: int | None = None,
        flags: tuple[Flag, ...] = (),
    ) -> str:
        """Add a finished eval cell and return its key; the metrics are means of the outcomes."""
        domains = self.id_domains if side == "id" else self.ood_domains
        n = self.clean_n if threat is None else self.robust_n
        cell = self.eval_cell(train_key, side, threat)
        metrics = tuple(
            Metric(name=f"accuracy/{name}", value=float(np.mean(bits)), n=len(bits)) for name, bits in outcomes.items()
        )
        evaluation = Evaluation(
            metrics=metrics,
            outcomes={name: Bits.pack([bool(flag) for flag in bits]) for name, bits in outcomes.items()},
            domains=tuple((domain, n) for domain in domains),
            flags=flags,
        )
        return self._keep(cell, evaluation=evaluation)

    def eval_cell(self, train_key: str, side: str, threat: int | None = None) -> EvalCell:
        domains = self.id_domains if side == "id" else self.ood_domains
        data, sources = slice_of(domains, self.clean_n if threat is None else self.robust_n)
        self.sources[data.ids_digest] = sources
        return EvalCell(
            model=CellStart(cell=train_key),
            data=data,
            evaluator=Component(name="clean" if threat is None else "adversarial", params={"index": threat}),
            protocol=1,
            threat=None if threat is None else self.threats[threat],
            seed=0,
        )

    def fail(self, cell: EvalCell | TrainCell) -> str:
        """Replace a cell's record by a failed one."""
        failure = Failure(type="CellError", message="the attack left the box", traceback="", stage="evaluate")
        self.records[cell.key] = ResultRecord(
            status="failed",
            cell_key=cell.key,
            cell=cell,
            failure=failure,
            result_digest=result_digest(cell.key, None, None),
            provenance=PROVENANCE,
            timing=TIMING,
        )
        return cell.key

    def _keep(
        self, cell: EvalCell | TrainCell, evaluation: Evaluation | None = None, training: TrainingResult | None = None
    ) -> str:
        self.records[cell.key] = ResultRecord(
            status="ok",
            cell_key=cell.key,
            cell=cell,
            evaluation=evaluation,
            training=training,
            result_digest=result_digest(cell.key, evaluation, training),
            provenance=PROVENANCE,
            timing=TIMING,
        )
        return cell.key

    def row(
        self,
        label: str,
        accuracies: tuple[float, float, float, float],
        seeds: Sequence[int] = (0, 1),
        start: str | None = None,
        flags: tuple[Flag, ...] = (),
    ) -> list[RowSeed]:
        """Add a row whose a_id, r_id, a_ood, r_ood are about `accuracies`.

        Args:
            label: name of the row and of its method.
            accuracies: the four accuracies; the first examples of every domain are right, shifted by the seed.
            seeds: training seeds.
            start: label of the row it starts from.
            flags: flags of its in-distribution attack.
        """
        a_id, r_id, a_ood, r_ood = accuracies
        added = []
        for seed in seeds:
            start_key = next((r.train_key for r in self.rows if r.label == start and r.seed == seed), None)
            key = self.train(label, seed, passes=40 + 10 * seed, start=start_key)
            cells = {
                "a_id": self.measure(key, "id", {"clean": self.bits(a_id, len(self.id_domains), self.clean_n, seed)}),
            }
            if self.ood_domains:
                bits = self.bits(a_ood, len(self.ood_domains), self.clean_n, seed)
                cells["a_ood"] = self.measure(key, "ood", {"clean": bits})
            for index in range(len(self.threats)):
                drop = 0.5**index
                cells[f"r_id@{index}"] = self.measure(
                    key, "id", self.attacked(a_id, r_id * drop, "id", seed), index, flags if index == 0 else ()
                )
                if self.ood_domains:
                    outcomes = self.attacked(a_ood, r_ood * drop, "ood", seed)
                    cells[f"r_ood@{index}"] = self.measure(key, "ood", outcomes, index)
            added.append(
                RowSeed(label=label, method=label, seed=seed, train_key=key, start_train_key=start_key, cells=cells)
            )
        self.rows.extend(added)
        return added

    def bits(self, accuracy: float, domains: int, n: int, shift: int = 0) -> list[bool]:
        """`round(accuracy * n)` right answers in each domain."""
        right = round(accuracy * n)
        one = [(index + shift) % n < right for index in range(n)]
        return one * domains

    def attacked(self, clean: float, robust: float, side: str, shift: int = 0) -> dict[str, list[bool]]:
        domains = len(self.id_domains if side == "id" else self.ood_domains)
        kept = self.bits(min(clean, robust), domains, self.robust_n, shift)
        right = self.bits(clean, domains, self.robust_n, shift)
        return {"clean": right, "fgsm": right, "pgd": kept, "robust": kept}

    def plan(self, **changes: object) -> StoredPlan:
        fields: dict[str, object] = {
            "suite": "synthetic",
            "version": 1,
            "suite_digest": sha256_hex(b"suite"),
            "summary": "made up",
            "rows": tuple(self.rows),
            "id_domains": self.id_domains,
            "ood_domains": self.ood_domains,
            "threats": self.threats,
        }
        return StoredPlan.model_validate({**fields, **changes})

    def groups(self, digest: str) -> list[str] | None:
        return self.sources.get(digest)


@pytest.fixture
def make_world() -> type[World]:
    return World


@pytest.fixture
def world() -> World:
    """Three complete rows, two seeds, one threat."""
    made = World()
    made.row("erm", (0.95, 0.05, 0.6, 0.0))
    made.row("pgd-at", (0.9, 0.7, 0.65, 0.4))
    made.row("weak", (0.85, 0.6, 0.6, 0.4))
    return made
