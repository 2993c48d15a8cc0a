"""Units of work, identified by what was asked.

A cell's key is the SHA-256 of its canonical JSON with every parameter resolved, so it is known before any work is
done, and equal questions asked by two suites share one answer. Keys change only when the question changes; a change
of code that changes answers raises a `protocol` number.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer, model_validator

from robusteval.schema.digest import json_digest
from robusteval.schema.threats import Threat
from robusteval.schema.types import Component, Digest, Frozen, JsonValue, NonNegativeInt, PositiveInt


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


LOCATIONS = ("path", "cache")
"""Parameters of datasets that are files or folders. They say where the content lies; the revision says what it is."""


class DataSlice(Frozen):
    """An exact, ordered set of examples."""

    dataset: Component
    """Dataset with resolved parameters."""
    located: tuple[Annotated[str, Field(pattern=r"^([a-z_]+\.params\.)*(path|cache)$")], ...] = ()
    """Those of its parameters that name a place on this machine, such as `path` or, of a dataset inside the dataset,
    `of.params.path`. They are read as absent in the key, so that content that moved is the same question."""
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

    @model_validator(mode="after")
    def _places_are_parameters(self) -> Self:
        for name in self.located:
            if _owner(self.dataset.params, name) is None:
                raise ValueError(f"'located' names {name!r}, which is no parameter of dataset {self.dataset.name!r}")
        return self

    @model_serializer(mode="wrap")
    def _without_places(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        canonical = bool(info.context and info.context.get("canonical"))
        for name in self.located if canonical else ():
            owner = _owner(written["dataset"]["params"], name)
            assert owner is not None
            owner[name.rpartition(".")[2]] = None
        if canonical or not self.located:
            written.pop("located", None)
        return written


def _owner(params: dict[str, JsonValue], name: str) -> dict[str, JsonValue] | None:
    """The mapping that holds the last part of a dotted name; None if there is no such thing."""
    *outer, last = name.split(".")
    for part in outer:
        inner = params.get(part)
        if not isinstance(inner, dict):
            return None
        params = inner
    return params if last in params else None


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
    watched: tuple[DataSlice, ...] = ()
    """Domains that are not trained on and are measured at every validation, so that other cells can select by them."""
    selected_by: dict[str, Digest] = {}
    """Training domain to the cell that is trained without it and watches it; both together select by
    leave-one-domain-out."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        for name in ("watched", "selected_by"):
            if not getattr(self, name):
                written.pop(name, None)
        return written


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
