"""What planning asks of the floors that need torch, loaded by name when a suite is checked.

Nothing here is imported statically, so that listing, showing and `--help` never reach torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robusteval.schema.params import canonical_params, checked_params
from robusteval.schema.registry import Registry, load_target
from robusteval.schema.threats import Threat
from robusteval.schema.types import Component, Frozen, JsonValue

if TYPE_CHECKING:
    from robusteval.data.imageset import Dataset, Split
    from robusteval.models.checkpoint_info import CheckpointInfo
    from robusteval.schema.cells import DataSlice
    from robusteval.schema.protocols import Protocol
    from robusteval.schema.specs import ShiftSpec, WeightsSpec


def _call(target: str, *arguments: Any, **options: Any) -> Any:
    return load_target(target)(*arguments, **options)


def registry(kind: str) -> Registry[Any]:
    """The registry of one kind: method, attack, architecture, dataset, evaluator, augmentation, shift."""
    target = {
        "method": "robusteval.methods:METHODS",
        "attack": "robusteval.attacks:ATTACKS",
        "architecture": "robusteval.models:ARCHITECTURES",
        "dataset": "robusteval.data:DATASETS",
        "evaluator": "robusteval.evaluators:EVALUATORS",
        "augmentation": "robusteval.data:AUGMENTATIONS",
        "shift": "robusteval.shifts:SHIFTS",
    }[kind]
    found: Registry[Any] = load_target(target)
    return found


KINDS = ("method", "attack", "architecture", "dataset", "evaluator", "augmentation", "shift")
"""Kinds of registered things."""


def params_of(target: Any) -> type[Frozen]:
    """The parameter model of a registered class."""
    model: type[Frozen] = target.Params
    return model


def resolve_method(name: str, params: Mapping[str, JsonValue]) -> Component:
    """Method with every parameter present."""
    found: Component = _call("robusteval.methods.resolve:resolve_method", name, params)
    return found


def resolve_attack(component: Component, threat: Threat) -> Component:
    """Attack with every parameter present, checked against the threat model."""
    found: Component = _call("robusteval.attacks.base:resolve_attack", component, threat)
    return found


def resolve_architecture(component: Component) -> Component:
    """Architecture with every parameter present."""
    found: Component = _call("robusteval.models.build:resolve_architecture", component)
    return found


def resolve_evaluator(name: str, params: Mapping[str, JsonValue]) -> Component:
    """Evaluator with every parameter present."""
    checked = checked_params(f"evaluator {name!r}", params_of(registry("evaluator").load(name)), params)
    return Component(name=name, params=canonical_params(checked))


def expand_shifts(specs: Sequence[ShiftSpec], side: int) -> tuple[Component, ...]:
    """One component for each shift and severity, with every parameter present; groups are written out."""
    found: tuple[Component, ...] = _call("robusteval.shifts.groups:expand_shifts", specs, side)
    return found


def load_protocol(name: str) -> Protocol:
    """A frozen protocol by name."""
    found: Protocol = _call("robusteval.data.protocols:load_protocol", name)
    return found


def open_dataset(component: Component) -> Dataset[Any]:
    """Dataset behind a component."""
    found: Dataset[Any] = _call("robusteval.data.slices:open_dataset", component)
    return found


def make_slice(
    component: Component, dataset: Dataset[Any], domains: Sequence[str], split: Split, per_domain: int | None
) -> DataSlice:
    """Exact slice of a dataset."""
    found: DataSlice = _call("robusteval.data.slices:make_slice", component, dataset, domains, split, per_domain)
    return found


def empty_slice(component: Component, dataset: Dataset[Any], domains: Sequence[str]) -> DataSlice:
    """Slice of a training that reads no image."""
    found: DataSlice = _call("robusteval.data.slices:empty_slice", component, dataset, domains)
    return found


def smallest_image(component: Component) -> int:
    """Smallest image side that an architecture takes, in pixels."""
    found: int = _call("robusteval.models.build:load_architecture", component).smallest
    return found


def inspect_checkpoint(path: Path, source: str) -> CheckpointInfo:
    """What a checkpoint file says about its model; no weights are read."""
    found: CheckpointInfo = _call("robusteval.models.checkpoint_info:inspect_checkpoint", path, source=source)
    return found


def is_bare(path: Path) -> bool:
    """Whether a file holds weights without the header of a checkpoint."""
    found: bool = _call("robusteval.models.pretrained:is_bare", path)
    return found


def resolve_start(
    start: str, spec: WeightsSpec, architecture: Component, dataset: Dataset[Any], *, seed: int, folder: Path
) -> Path:
    """Checkpoint that a pretrained start stands for."""
    target = _call(
        "robusteval.models.pretrained:Target",
        architecture=architecture,
        class_names=dataset.classes,
        input_shape=dataset.image_shape,
        mean=dataset.mean,
        std=dataset.std,
        seed=seed,
    )
    cache: Path = _call("robusteval.data.places:cache_folder")
    found: Path = _call("robusteval.models.pretrained:resolve_start", start, spec, target, folder=folder, cache=cache)
    return found


def check_fits(info: CheckpointInfo, dataset: Dataset[Any], source: str, *, any_classes: bool = False) -> None:
    """Refuse a checkpoint whose image shape or, unless `any_classes`, classes are not those of the data."""
    if any_classes:
        info = info.model_copy(update={"classes": len(dataset.classes), "class_names": None})
    _call("robusteval.models.checkpoint_info:check_fits", info, dataset.classes, dataset.image_shape, source=source)
