"""A suite under a frozen protocol: its settings become the suite's defaults, and every deviation is listed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from robusteval.planning import targets
from robusteval.schema.plans import ProtocolUse
from robusteval.schema.protocols import Protocol, Selection
from robusteval.schema.specs import MethodSpec, SuiteSpec, TrainSpec
from robusteval.schema.types import Component, JsonValue

_ITERATIONS, _EPOCHS = ("iterations", "evaluate_every"), ("epochs", "drop_last")
"""Parameters that belong to the two ways in which the length of a training is said."""


def with_protocol_data(train: TrainSpec, protocol: Protocol) -> Component:
    """The training dataset with the protocol's split, target share and image size where the suite says nothing."""
    return train.data.model_copy(update={"params": {**_data_defaults(train, protocol), **train.data.params}})


def apply_protocol(spec: SuiteSpec, protocol: Protocol, domains: int) -> tuple[SuiteSpec, ProtocolUse]:
    """Fill in what a protocol says, and list what the suite does otherwise.

    Args:
        spec: the suite as written.
        protocol: the protocol it names.
        domains: number of domains of the dataset.
    """
    train = spec.train.model_copy(update={"data": with_protocol_data(spec.train, protocol)})
    methods, by_text = [], dict[str, list[str]]()
    for row in spec.methods:
        defaults = _method_defaults(row, spec, protocol)
        methods.append(row.model_copy(update={"params": {**defaults, **row.params}}))
        for text in _row_deviations(row, defaults, protocol):
            by_text.setdefault(text, []).append(row.row)
    deviations = list(_suite_deviations(spec, protocol))
    for text, rows in by_text.items():
        deviations.append(f"{'every row' if len(rows) == len(spec.methods) > 1 else ', '.join(rows)}: {text}")
    use = ProtocolUse(
        name=protocol.name,
        digest=protocol.digest,
        average=protocol.target.average,
        selection=protocol.selection,
        deviations=tuple(deviations),
        runs={rule: protocol.runs(domains, rule) for rule in _rules(protocol)},
    )
    return spec.model_copy(update={"train": train, "methods": tuple(methods)}), use


def _rules(protocol: Protocol) -> tuple[Selection, ...]:
    everywhere: tuple[Selection, ...] = ("last", "training-domain", "oracle")
    return (*everywhere, "leave-one-domain-out") if protocol.training_domains == "all-but-one" else everywhere


def _fields(kind: str, name: str) -> Mapping[str, Any]:
    return targets.params_of(targets.registry(kind).load(name)).model_fields


def _wanted_data(train: TrainSpec, protocol: Protocol) -> dict[str, JsonValue]:
    """What the protocol wants of the data, in the words of the datasets that know how."""
    wanted: dict[str, JsonValue] = {"size": protocol.image_size, "score_share": protocol.target.share}
    if protocol.split.by != "official":
        wanted["split"] = protocol.split.by
    if protocol.split.by == "hash" and protocol.split.holdout is not None:
        wanted["validation"] = protocol.split.holdout
    if protocol.training_domains != "given":
        wanted["sources"] = list(train.domains)
    return wanted


def _data_defaults(train: TrainSpec, protocol: Protocol) -> dict[str, JsonValue]:
    fields = _fields("dataset", train.data.name)
    return {name: value for name, value in _wanted_data(train, protocol).items() if name in fields}


def _method_defaults(row: MethodSpec, spec: SuiteSpec, protocol: Protocol) -> dict[str, JsonValue]:
    wanted = {**protocol.method, **protocol.per_dataset.get(spec.train.data.name, {})}
    if protocol.batch_per_domain is not None:
        wanted["batch_size"] = protocol.batch_per_domain * spec.train.trained_at_once
    fields = _fields("method", row.method)
    counts_epochs = targets.registry("method").load(row.method).counts_epochs
    if "epochs" in row.params or counts_epochs:
        wanted = {name: value for name, value in wanted.items() if name not in _ITERATIONS}
    if "iterations" in row.params:
        wanted = {name: value for name, value in wanted.items() if name not in _EPOCHS}
    return {name: value for name, value in wanted.items() if name in fields}


def _suite_deviations(spec: SuiteSpec, protocol: Protocol) -> Iterator[str]:
    data, wanted = spec.train.data, _wanted_data(spec.train, protocol)
    fields = _fields("dataset", data.name)
    for name, value in wanted.items():
        if name in fields and data.params.get(name, value) != value:
            yield f"data: {name} {_shown(data.params[name])} (protocol: {_shown(value)})"
        elif name in ("split", "score_share") and name not in fields:
            yield f"data: {data.name} cannot be split by {name} {_shown(value)}"
    if protocol.split.by == "official":
        yield f"data: a split by hash (protocol: the lists published with {data.name})"
    if protocol.split.seeded_by_trial:
        yield "data: every seed has the same split (protocol: one split for each trial)"
    if protocol.training_domains == "one" and spec.train.trained_at_once != 1:
        yield f"trained on {spec.train.trained_at_once} domains (protocol: one)"
    if protocol.validation_augmented:
        yield "validation images are not augmented (protocol: augmented like the training images)"
    if len(spec.seeds) < protocol.seeds:
        yield f"{len(spec.seeds)} seeds (protocol: {protocol.seeds})"
    if protocol.search is not None:
        tried = protocol.search.trials * protocol.search.draws
        yield f"one setting of the parameters (protocol: a search over {tried} runs for each target)"
    yield f"architecture {spec.train.architecture.name} (protocol: {protocol.backbone})"


def _row_deviations(row: MethodSpec, defaults: Mapping[str, JsonValue], protocol: Protocol) -> Iterator[str]:
    missing = [name for name in _ITERATIONS if name in protocol.method and name not in defaults]
    if missing:
        yield f"counted in epochs (protocol: {protocol.method['iterations']} iterations)"
    for name, value in row.params.items():
        if name in defaults and value != defaults[name]:
            yield f"{name} {_shown(value)} (protocol: {_shown(defaults[name])})"


def _shown(value: JsonValue) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_shown(part) for part in value) + "]"
    if isinstance(value, dict):
        return str(value.get("name", value))
    return str(value)
