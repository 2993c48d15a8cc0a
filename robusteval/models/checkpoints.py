"""Checkpoints: one safetensors file that holds weights and everything needed to use them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from robusteval.models.build import build_network, resolve_architecture
from robusteval.models.checkpoint_info import (
    METADATA_KEY,
    CheckpointHeader,
    CheckpointInfo,
    parse_header,
    read_header,
)
from robusteval.models.classifier import Classifier
from robusteval.schema.digest import canonical_json
from robusteval.schema.errors import CheckpointError, UsageError
from robusteval.schema.types import Component


def save_checkpoint(
    model: Classifier,
    architecture: Component,
    *,
    class_names: Sequence[str] | None,
    extra: Mapping[str, str] | None = None,
) -> bytes:
    """Encode a model as one file; equal weights and equal facts give equal bytes.

    Args:
        model: the model, on any device; its network must be what `architecture` builds.
        architecture: name and parameters; missing parameters are filled in.
        class_names: class names in label order, or None if only their number is known.
        extra: `licence`, `source` and `notes`, where there is something to say.

    Raises:
        CheckpointError: the network's tensors are not those of the architecture (an inserted layer was left in it).
        UsageError: the architecture or its parameters are unknown.
        ValueError: `extra` has another key, or the class names do not fit the number of classes.
    """
    info = CheckpointInfo.model_validate(
        {
            "architecture": resolve_architecture(architecture),
            "classes": model.classes,
            "class_names": None if class_names is None else tuple(class_names),
            "input_shape": model.input_shape,
            "mean": _as_written(model.mean),
            "std": _as_written(model.std),
            **(extra or {}),
        }
    )
    return encode_checkpoint(info, model.network.state_dict())


def encode_checkpoint(info: CheckpointInfo, state: Mapping[str, Tensor]) -> bytes:
    """Encode a state dict of the network that `info` names.

    Raises:
        CheckpointError: names or shapes of the tensors are not those of the architecture.
    """
    reference = build_network(info.architecture, info.classes, info.input_shape, seed=None).state_dict()
    check_state(state, reference, source=f"a model of {info.architecture.name!r}")
    # Clones, because safetensors refuses tensors that share memory.
    tensors = {name: state[name].detach().cpu().contiguous().clone() for name in sorted(state)}
    header = CheckpointHeader(info=info, digest=_digest(info, tensors))
    return save_tensors(tensors, metadata={METADATA_KEY: header.encode()})


def load_checkpoint(data: bytes, *, source: str) -> tuple[Classifier, CheckpointInfo]:
    """Decode and verify a checkpoint.

    Args:
        data: the whole file.
        source: name of the file in error messages.

    Returns:
        The model, on the CPU and in evaluation mode, and what the file says about it.

    Raises:
        CheckpointError: the file is cut off, damaged, of another format, or does not fit its architecture.
    """
    header = parse_header(read_header(data, source=source), source=source)
    info = header.info
    state = read_tensors(data, source=source)
    if _digest(info, state) != header.digest:
        raise CheckpointError(
            f"{source}: the checkpoint is damaged (its digest does not match); copy or train it again"
        )
    try:
        network = build_network(info.architecture, info.classes, info.input_shape, seed=None)
    except UsageError as error:
        raise CheckpointError(f"{source}: {error}") from error
    check_state(state, network.state_dict(), source=source)
    network.load_state_dict(state)
    model = Classifier(network, classes=info.classes, input_shape=info.input_shape, mean=info.mean, std=info.std).eval()
    return model, info


def read_tensors(data: bytes, *, source: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: the file is cut off or damaged.
    """
    try:
        return load_tensors(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError, OverflowError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{source}: the file is cut off or damaged ({reason}); copy or download it again"
        ) from error


def check_state(state: Mapping[str, Tensor], reference: Mapping[str, Tensor], *, source: str) -> None:
    """Check that a state dict has the names and shapes of a network's own.

    Raises:
        CheckpointError: it has not; the first few differences are listed.
    """
    problems = [f"{name} is missing" for name in reference if name not in state]
    problems += [f"{name} is not part of the architecture" for name in state if name not in reference]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in reference.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{source}: the weights do not fit the architecture: {'; '.join(problems[:3])}{more}")


def _as_written(values: Tensor) -> tuple[float, ...]:
    """The shortest decimals that give these float32 values back: 0.485, not 0.48500001430511475."""
    return tuple(float(str(value)) for value in values.detach().cpu().flatten().numpy())


def _digest(info: CheckpointInfo, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(canonical_json(info.model_dump(mode="json")))
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]))
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
