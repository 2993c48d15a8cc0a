"""Units of work, identified by what was asked.

A cell's key is the SHA-256 of its canonical JSON with every parameter resolved, so it is known before any work is
done, and equal questions asked by two suites share one answer. Keys change only when the question changes; a change
of code that changes answers raises a `protocol` number.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from robusteval.schema.digest import json_digest
from robusteval.schema.threats import Threat
from robusteval.schema.types import Component, Digest, Frozen, NonNegativeInt, PositiveInt


class CellStart(Frozen):
    """A model trained by another cell."""

    kind: Literal["cell"] = "cell"
    cell: Digest
    """Key of the train cell that produces it."""
    checkpoint: Literal["last", "training-domain"] | None = None
    """Which of its weights; the selected ones if absent."""

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        if self.checkpoint is None:
            written.pop("checkpoint", None)
        return written


class WeightsStart(Frozen):
    """A checkpoint that was given as a file and put into the store."""

    kind: Literal["weights"] = "weights"
    weights: Digest
    """SHA-256 of the checkpoint file."""


ModelRef = Annotated[CellStart | WeightsStart, Field(discriminator="kind")]
"""Where a model comes from."""


class DataSlice(Frozen):
    """An exact, ordered set of examples."""

    dataset: Component
    """Dataset with resolved parameters."""
    revision: str
    """Content version of the dataset."""
    domains: tuple[str, ...]
    """Domains, in the order in which their examples follow each other."""
    split: Literal["train", "validation", "test"]
    """Split."""
    per_domain: PositiveInt | None = None
    """Only the first so many examples of each domain, in the dataset's canonical order; all if absent."""
    n: NonNegativeInt
    """Number of examples."""
    ids_digest: Digest
    """Digest of the ordered example ids."""


class _Keyed(Frozen):
    @cached_property
    def key(self) -> str:
        """SHA-256 of the canonical JSON of the cell (64 hexadecimal characters)."""
        return json_digest(self.model_dump(mode="json", context={"canonical": True}))


class TrainCell(_Keyed):
    """Train one model."""

    kind: Literal["train"] = "train"
    data: DataSlice
    """Training examples; the validation split of the same dataset and domains selects."""
    architecture: Component
    """Network with resolved parameters."""
    method: Component
    """Method with resolved parameters."""
    protocol: PositiveInt
    """Version of the method's code; raised when its results change."""
    start: ModelRef | None = None
    """Model to start from; random weights if absent."""
    seed: NonNegativeInt
    """Seed of initial weights, batch order, augmentation and noise."""


class EvalCell(_Keyed):
    """Measure one model on one slice."""

    kind: Literal["eval"] = "eval"
    model: ModelRef
    """Model to measure."""
    data: DataSlice
    """Examples to measure on."""
    evaluator: Component
    """Evaluator with resolved parameters; attacks are among them."""
    protocol: PositiveInt
    """Version of the evaluator's code; raised when its results change."""
    threat: Threat | None = None
    """Threat model; absent for clean accuracy."""
    seed: NonNegativeInt
    """Seed of evaluation noise."""


AnyCell = Annotated[TrainCell | EvalCell, Field(discriminator="kind")]
"""A cell of either kind."""
