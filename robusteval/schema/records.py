"""What was found: evaluations, training results, and the record that the store keeps of each cell."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from robusteval.schema.cells import AnyCell
from robusteval.schema.digest import check_bits, json_digest, pack_bits, unpack_bits
from robusteval.schema.types import Digest, Frozen, JsonValue, NonNegativeFloat, NonNegativeInt

SCHEMA_VERSION = 1
"""Version of the record format; readers refuse a newer one by name."""


class Metric(Frozen):
    """One number with its interval and the count it rests on."""

    name: str
    """Such as `accuracy`, `nll`, `ece`, `robust_accuracy`; per domain `accuracy/rotated`."""
    value: float
    """The estimate at full precision."""
    low: float | None = None
    """Lower end of the 95 % interval; absent where none is defined."""
    high: float | None = None
    """Upper end of the 95 % interval."""
    n: NonNegativeInt
    """Number of examples."""
    interval: str | None = None
    """How the interval was computed, such as `wilson`."""
    higher_is_better: bool = True
    """Direction of improvement."""


class Bits(Frozen):
    """One boolean per example, in the order of the cell's slice."""

    n: NonNegativeInt
    """Number of examples."""
    bits: str
    """Base64, first example in the highest bit of the first byte."""

    @classmethod
    def pack(cls, flags: list[bool]) -> Self:
        """Store booleans."""
        return cls(n=len(flags), bits=pack_bits(flags))

    def unpack(self) -> list[bool]:
        """Read the booleans back."""
        return unpack_bits(self.bits, self.n)

    @model_validator(mode="after")
    def _bits_fit(self) -> Self:
        check_bits(self.bits, self.n)
        return self


class Flag(Frozen):
    """A reason to doubt a number."""

    code: str
    """Stable identifier, such as `black-box-beats-white-box`."""
    severity: Literal["info", "warning", "error"]
    """How much doubt it casts."""
    evidence: str
    """What was seen, with numbers."""
    next_step: str
    """What to do about it."""


class Budget(Frozen):
    """Passes of single examples through the network, as counted by the `Classifier`."""

    forward: NonNegativeInt = 0
    """Forward passes, summed over examples."""
    backward: NonNegativeInt = 0
    """Backward passes, summed over examples."""


class Evaluation(Frozen):
    """What an evaluator found; nothing about where or when."""

    metrics: tuple[Metric, ...]
    """Summary numbers; each is a function of the outcomes or names what else it needed."""
    outcomes: dict[str, Bits]
    """Per example: `clean` = predicted right; one entry per attack = still right after it; `robust` = after all."""
    domains: tuple[tuple[str, NonNegativeInt], ...]
    """Domain names and example counts, in slice order."""
    flags: tuple[Flag, ...] = ()
    """Reasons for doubt."""
    budget: Budget = Budget()
    """Passes spent."""
    details: Digest | None = None
    """SHA-256 of the artefact with the verdict of each attack on each example; part of neither hash."""
    images: tuple[Digest, ...] = ()
    """SHA-256 of the artefacts with the adversarial images, if they were kept; part of neither hash."""
    spec: str | None = None
    """Name of a robust accuracy that AutoAttack measured, such as `aa-standard@linf-8/255@n1000@seed0@engine1`."""


class TrainingResult(Frozen):
    """What training produced."""

    weights: Digest
    """SHA-256 of the checkpoint file in the store."""
    budget: Budget
    """Training passes, without those of the start model; validation is counted in `selection_budget`."""
    selection_budget: Budget = Budget()
    """Passes on validation data."""
    n_examples: NonNegativeInt
    """Number of training examples."""
    selected_on: str
    """Which data selected the weights, such as `last` or `validation`."""
    selected_epoch: NonNegativeInt
    """Epoch whose weights were kept, counted from 1."""
    history: tuple[dict[str, float], ...]
    """One object per epoch: `epoch`, `lr`, `loss`, `validation_accuracy`, ..."""
    checkpoints: dict[str, Digest] = {}
    """Weights of the same run by the rule that would have kept them: `last`, `training-domain`; for the audit of
    selection, never for ranks. Empty where the method chooses by itself."""
    diagnostics: dict[str, JsonValue] = {}
    """What the method itself reports, such as RiFT's criticality per module."""


class Failure(Frozen):
    """Why a cell failed."""

    type: str
    """Exception class."""
    message: str
    """Its text."""
    traceback: str
    """Full traceback."""
    stage: str
    """What was being done: `load`, `train`, `evaluate`, `store`."""


class Provenance(Frozen):
    """Where a result comes from; part of neither hash."""

    robusteval_version: str
    """Version of this package."""
    git_commit: str | None = None
    """Commit of the package's checkout, if it is one."""
    git_dirty: bool | None = None
    """Whether that checkout had uncommitted changes."""
    packages: dict[str, str]
    """Versions of the packages that numbers depend on."""
    python: str
    """Interpreter version."""
    platform: str
    """Operating system and machine."""
    device: str
    """Device the cell ran on, in words."""
    threads: NonNegativeInt
    """CPU threads used."""


class Timing(Frozen):
    """When and how long; part of neither hash."""

    started_at: str
    """UTC, ISO 8601."""
    wall_s: NonNegativeFloat
    """Seconds, summed over resumed attempts where known."""
    peak_memory_mb: NonNegativeFloat = 0.0
    """Largest resident memory of the process."""


class ResultRecord(Frozen):
    """The stored result of one cell."""

    schema_version: Literal[1] = 1
    """Version of this format."""
    status: Literal["ok", "failed", "cancelled"]
    """Outcome of the attempt."""
    cell_key: Digest
    """Key of `cell`, recomputed on reading."""
    cell: Annotated[AnyCell, Field()]
    """What was asked."""
    evaluation: Evaluation | None = None
    """Result of an eval cell."""
    training: TrainingResult | None = None
    """Result of a train cell."""
    failure: Failure | None = None
    """Present only if the cell failed."""
    result_digest: Digest
    """What was found; recomputed on reading."""
    provenance: Provenance
    """Where it comes from."""
    timing: Timing
    """When and how long."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.cell_key != self.cell.key:
            raise ValueError(f"cell_key {self.cell_key[:12]} is not the key of the cell, {self.cell.key[:12]}")
        found = result_digest(self.cell_key, self.evaluation, self.training)
        if self.result_digest != found:
            raise ValueError(f"result_digest {self.result_digest[:12]} is not the digest of the result, {found[:12]}")
        results = {"train": self.training, "eval": self.evaluation}
        if self.status == "ok" and (results[self.cell.kind] is None or self.failure is not None):
            raise ValueError(f"status is ok but the {self.cell.kind} result is missing or a failure is present")
        if self.status == "failed" and self.failure is None:
            raise ValueError("status is failed but no failure is present")
        if self.evaluation is not None:
            counted = sum(count for _, count in self.evaluation.domains)
            if counted != self.cell.data.n:
                raise ValueError(f"evaluation.domains count {counted} examples, the cell has {self.cell.data.n}")
        return self


def result_digest(cell_key: str, evaluation: Evaluation | None, training: TrainingResult | None) -> str:
    """Digest of what was found: the key, the outcomes and the metrics at 6 digits, or the weights.

    Diagnostics and wall time are left out, the calibration of single domains among them; metrics are rounded so that a
    last-bit difference in a mean is not an event.
    """
    found: dict[str, Any] = {"cell_key": cell_key}
    if evaluation is not None:
        found["outcomes"] = {name: bits.bits for name, bits in evaluation.outcomes.items()}
        found["metrics"] = {
            metric.name: f"{metric.value:.6g}" for metric in evaluation.metrics if metric.name[:4] != "ece/"
        }
    if training is not None:
        found["weights"] = training.weights
        found["selected_epoch"] = training.selected_epoch
    return json_digest(found)
