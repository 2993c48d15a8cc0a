"""Ask in about thirty passes an example whether a model lost robustness against an accepted baseline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from robusteval.api.gating import attacked_cell
from robusteval.api.models import AnyModel, Preprocessing, as_classifier, family_of
from robusteval.data.slices import load_slice
from robusteval.evaluators.adversarial import AdversarialParams
from robusteval.evaluators.adversarial_report import ATTACKED
from robusteval.evaluators.base import EvaluationContext
from robusteval.evaluators.fast_gate import Bools, FastFindings, Known, run_fast_gate
from robusteval.evaluators.image_parts import decode_part
from robusteval.execution.device import resolve_device
from robusteval.planning.loader import load_suite
from robusteval.schema.errors import CorruptRecordError, UsageError
from robusteval.schema.params import checked_params
from robusteval.schema.records import ResultRecord
from robusteval.scoring.baseline_cell import BaselineCell
from robusteval.scoring.baseline_evidence import read_evidence
from robusteval.scoring.baselines import Baseline, load_baseline
from robusteval.scoring.outcomes import evaluation_of
from robusteval.scoring.sides import MismatchError, measurement, refuse_mismatch
from robusteval.scoring.verdict_text import to_text
from robusteval.scoring.verdicts import Measurement, ModelComparison, Pair, Rule, judge
from robusteval.store.columns import read_columns
from robusteval.store.store import Store

FastVerdict = Literal["regressed", "inconclusive", "clear", "pass"]
"""`clear`: no regression in what was tried, which was not the full protocol; `pass`: the full protocol found none."""


@dataclass(frozen=True)
class FastResult:
    """What a fast gate says.

    Attributes:
        verdict: see `FastVerdict`.
        comparison: baseline and candidate; the candidate's accuracy is an upper bound unless the gate was complete.
        findings: what was done, example by example.
    """

    verdict: FastVerdict
    comparison: ModelComparison
    findings: FastFindings

    @property
    def passes(self) -> float:
        """Forward and backward passes an example."""
        budget = self.findings.budget
        return (budget.forward + budget.backward) / len(self.findings.stands)

    def __str__(self) -> str:
        done = "; ".join(
            f"{part.what} {part.examples} examples, {part.broke} fell, {part.passes} passes"
            for part in self.findings.parts
        )
        left = int((~self.findings.settled).sum())
        rest = (
            "the full protocol has the last word on all"
            if not left
            else f"the full protocol was not run on {left}, so the candidate's accuracy is an upper bound"
        )
        head = f"fast gate: {self.verdict}, {self.passes:.1f} passes an example ({done}); {rest}"
        return f"{head}\n{to_text(self.comparison)}"


def fast_gate(
    model: AnyModel,
    baseline: str | Path,
    suite: str | Path = "digits",
    *,
    cell: str = "r_id",
    passes: int = 30,
    store: str | Path | None = None,
    device: str = "auto",
    **arguments: Any,
) -> FastResult:
    """Look for a loss of robustness, cheapest evidence first, and stop as soon as one is proved.

    The baseline's stored adversarial images are shown again, then a short attack runs on what still stands, then the
    full protocol on as many examples as the budget allows; those that the baseline kept by the smallest margin come
    first. `regressed` is as sure as from the full protocol, because attacking on could only add losses; `clear` is no
    `pass`. Stored images exist where the suite says `keep: uint8`.

    Args:
        model: as in `evaluate`.
        baseline: folder of an accepted baseline, such as `tests/baselines/main`.
        suite: the suite of the baseline.
        cell: attacked cell, such as `r_id` or `r_ood@1`.
        passes: forward and backward passes an example, on average. The clean prediction, the replay and the short
            attack are done in any case.
        store: where stored images are looked for that are not beside the baseline.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        **arguments: `mean`, `std` and `value_range`, as in `evaluate`; `margin`, `sensitivity`, `alpha`, as in
            `compare` (fractions).

    Raises:
        UsageError: an argument makes no sense, or there is no such baseline.
        MismatchError: the baseline is about another question or another kind of model.
        BaselineError: the baseline is damaged.
        CellError: the model does not fit the data, or breaks its contract.
    """
    if passes < 1:
        raise UsageError(f"passes = {passes}: allow at least 1 pass an example; 30 is usual")
    rule = checked_params(
        "fast_gate",
        Rule,
        {key: arguments.pop(key) for key in ("margin", "sensitivity", "alpha") if key in arguments},
    )
    loaded = load_suite(suite)
    asked, role = attacked_cell(loaded, cell)
    classifier = as_classifier(
        model,
        classes=len(loaded.dataset.classes),
        input_shape=loaded.dataset.image_shape,
        preprocessing=Preprocessing(**arguments),
    )
    folder = Path(baseline)
    accepted, file = _accepted(folder, role, family_of(model, classifier))
    refuse_mismatch(file.cell, file.record.cell, asked)
    side = accepted.side()
    before = measurement(side, {file.seed: file.record}, role)

    def compared(stands: Bools) -> ModelComparison:
        now = Measurement(replace(before.outcomes, right=stands[None, :]), before.flags)
        return judge(side.name, "candidate", [Pair("", role, file.cell, before, now)], rule)

    known = _known(folder, file.record, None if store is None else Store.open(store), classifier.input_shape)
    was, place = classifier.device, resolve_device(device)
    try:
        findings = run_fast_gate(
            classifier.to(place),
            load_slice(asked.data),
            EvaluationContext(seed=asked.seed, threat=asked.threat),
            AdversarialParams.model_validate(asked.evaluator.params),
            known=known,
            passes=passes,
            decided=lambda stands: compared(stands).verdict == "regressed",
        )
    finally:
        classifier.to(was)
    comparison = compared(findings.stands)
    return FastResult(_verdict(comparison, findings), comparison, findings)


def _verdict(comparison: ModelComparison, findings: FastFindings) -> FastVerdict:
    if comparison.verdict == "regressed":
        return "regressed"
    if comparison.verdict != "pass":
        return "inconclusive"
    return "pass" if findings.complete else "clear"


def _accepted(folder: Path, role: str, family: str) -> tuple[Baseline, BaselineCell]:
    found = load_baseline(folder)
    if found is None:
        raise UsageError(f"{folder}: there is no baseline; robusteval baseline save {folder.name} accepts one")
    if found.family != family:
        raise MismatchError(f"baseline {found.name!r} is not about this kind of model: {found.family} -> {family}")
    for file in found.cells:
        if file.role == role:
            return found, file
    raise UsageError(
        f"baseline {found.name!r} has no cell {role}; it has {', '.join(sorted(c.stem for c in found.cells))}"
    )


def _known(folder: Path, record: ResultRecord, store: Store | None, shape: tuple[int, ...]) -> Known:
    """The images and margins of a record that can be found."""
    evaluation, n = evaluation_of(record), record.cell.data.n
    whole = ("clean", "robust")
    stages = tuple(name for name in evaluation.outcomes if name not in whole and not name.startswith(ATTACKED))
    images: dict[int, NDArray[Any]] = {}
    for digest in evaluation.images:
        blob = read_evidence(folder, digest, store)
        if blob is not None:
            parts = decode_part(blob, ids_digest=record.cell.data.ids_digest, stages=stages, n=n, shape=shape)
            images |= {example: saved.image for example, saved in parts.items()}
    blob = None if evaluation.details is None else read_evidence(folder, evaluation.details, store)
    return Known(images, None if blob is None else _margins(blob, n))


def _margins(blob: bytes, n: int) -> NDArray[np.floating[Any]]:
    found = read_columns(blob)[0].get("margin")
    if found is None or found.ndim != 2 or found.shape[1] != n or found.dtype.kind != "f":
        raise CorruptRecordError("the stored details of the baseline hold no margins of its examples")
    margins: NDArray[np.floating[Any]] = np.fmin.reduce(found, axis=0)
    return margins
