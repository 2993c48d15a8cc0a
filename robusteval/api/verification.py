"""Measuring a sample of a leaderboard entry again: what no file can show, running the model can."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from robusteval.api.fingerprint import model_digest
from robusteval.data.imageset import ImageSet
from robusteval.data.slices import load_slice
from robusteval.evaluators import EVALUATORS
from robusteval.evaluators.adversarial_report import ATTACKED
from robusteval.evaluators.base import EvaluationContext
from robusteval.evaluators.image_parts import IMAGES
from robusteval.evaluators.replaying import Replayer
from robusteval.execution.device import resolve_device
from robusteval.execution.work import load_model
from robusteval.leaderboard.entries import Entry
from robusteval.leaderboard.verification import CellCheck, Verification, judge
from robusteval.models.classifier import Classifier
from robusteval.schema.cells import EvalCell, WeightsStart
from robusteval.schema.errors import StoreError, UsageError
from robusteval.schema.plans import RowSeed
from robusteval.schema.records import Evaluation, ResultRecord
from robusteval.schema.replays import Replay
from robusteval.schema.types import ThreatModel
from robusteval.store.store import Store


def verify_entry(
    entry: Entry, store: Store, *, n: int = 200, draw: int = 0, models: Sequence[Classifier] = (), device: str = "auto"
) -> Verification:
    """Replay the saved adversarial images of an entry, and measure a random sample of its outcomes again.

    Args:
        entry: a measured entry.
        store: where its models and images are.
        n: examples a role that are measured again, spread over the training seeds and folds.
        draw: seed of the sample; whoever wrote the entry should not know it.
        models: the models of the rows in their order; those in the store if none are given.
        device: where they run; `auto`, `cpu`, `cuda` or `cuda:1`.

    Raises:
        UsageError: the entry is not measured, a model is neither given nor in the store, or the device is not there.
        DataError: a dataset is gone or changed.
        StoreError: a saved image file is damaged.
    """
    if not entry.measured:
        raise UsageError(f"{entry.id} is a reported entry; nothing stands behind it that could be measured again")
    if models and len(models) != len(entry.rows):
        raise UsageError(f"{entry.id} has {len(entry.rows)} models, one a seed and fold; {len(models)} are given")
    place = resolve_device(device)
    records = {record.cell_key: record for record in entry.records}
    share = -(-n // len(entry.rows))
    found: list[CellCheck] = []
    for number, row in enumerate(entry.rows):
        for role, key in sorted(row.cells.items()):
            record = records.get(key)
            if record is None or record.evaluation is None or not isinstance(record.cell, EvalCell):
                raise UsageError(
                    f"{entry.id}: has no result for {role} of {row.seed_name}; check it first (submit --check)"
                )
            model = models[number] if models else _stored(entry, row, record.cell, store)
            rng = np.random.default_rng([draw, len(found)])
            check = _Check(model.to(place).eval(), role, row, record, given=bool(models))
            found.append(check.run(store, min(share, record.cell.data.n), rng))
    return judge(entry.id, draw, tuple(found))


def _stored(entry: Entry, row: RowSeed, cell: EvalCell, store: Store) -> Classifier:
    try:
        return load_model(cell.model, store)
    except StoreError as error:
        raise UsageError(
            f"{entry.id}: the model of {row.seed_name} is not in {store.uri} ({error}); give it with --model"
        ) from None


class _Check:
    """One record, measured again in part.

    Args:
        model: its model, in evaluation mode on its device.
        role: role of the record.
        row: row of the record.
        record: the record.
        given: whether the model came from the user and not from the store.
    """

    def __init__(self, model: Classifier, role: str, row: RowSeed, record: ResultRecord, *, given: bool) -> None:
        assert isinstance(record.cell, EvalCell)
        assert record.evaluation is not None
        self._model, self._role, self._row, self._record = model, role, row, record
        self._cell: EvalCell = record.cell
        self._stated: Evaluation = record.evaluation
        self._given = given
        self._notes: list[str] = []

    def run(self, store: Store, n: int, rng: np.random.Generator) -> CellCheck:
        data = load_slice(self._cell.data)
        if self._given:
            self._identify(data)
        chosen = np.sort(rng.choice(len(data), size=n, replace=False))
        sample = data.take(chosen)
        evaluator_class = EVALUATORS.load(self._cell.evaluator.name)
        params = evaluator_class.Params.model_validate(
            {**self._cell.evaluator.params, **_plain(evaluator_class.Params.model_fields)}
        )
        context = EvaluationContext(seed=self._cell.seed, threat=self._cell.threat)
        again = evaluator_class(params).evaluate(self._model, sample, context)
        over, under, outcomes = self._compare(again, chosen, sample.ids)
        return CellCheck(
            role=self._role,
            seed=self._row.seed,
            fold=self._row.fold,
            cell_key=self._record.cell_key,
            examples=len(data),
            rerun=sample.ids,
            outcomes=outcomes,
            overclaimed=over,
            underclaimed=under,
            replay=self._replay(data, store),
            notes=tuple(self._notes),
        )

    def _compare(
        self, again: Evaluation, chosen: NDArray[np.int64], ids: Sequence[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...], int]:
        names = [name for name in ("clean", "robust") if name in self._stated.outcomes]
        if any(name.startswith(ATTACKED) for name in self._stated.outcomes):
            names.remove("robust")
            self._notes.append("an attack ran on a sample of the survivors; only clean predictions are compared")
        over: dict[str, None] = {}
        under: dict[str, None] = {}
        for name in names:
            stated = np.asarray(self._stated.outcomes[name].unpack())[chosen]
            found = np.asarray(again.outcomes[name].unpack())
            over |= {ids[place]: None for place in np.flatnonzero(stated & ~found).tolist()}
            under |= {ids[place]: None for place in np.flatnonzero(~stated & found).tolist()}
        return tuple(over), tuple(under), len(names) * len(ids)

    def _replay(self, data: ImageSet, store: Store) -> Replay | None:
        if not isinstance(self._cell.threat, ThreatModel):
            return None
        if not self._stated.images:
            self._notes.append("no adversarial images were kept (keep: uint8 in the suite keeps them)")
            return None
        try:
            parts = [store.get_artefact(digest, IMAGES) for digest in self._stated.images]
        except StoreError as error:
            self._notes.append(f"the adversarial images are not in this store ({error})")
            return None
        replayer = Replayer(self._model, data, self._cell.threat, self._stated)
        for part in parts:
            replayer.part(part)
        return replayer.report(self._record.cell_key)

    def _identify(self, data: ImageSet) -> None:
        if not isinstance(self._cell.model, WeightsStart):
            self._notes.append("the model was given; only its outcomes tell whether it is the one that was trained")
        elif self._role == "a_id" and model_digest(self._model, data) != self._cell.model.weights:
            self._notes.append(
                "the given model has another digest than the entry's: another model, or another device or version of "
                "torch"
            )


def _plain(fields: Collection[str]) -> dict[str, object]:
    """Settings of an evaluator that change no outcome, at their cheapest."""
    wanted = {"checks": False, "keep": "none"}
    return {name: value for name, value in wanted.items() if name in fields}
