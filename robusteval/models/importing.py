"""Importing weights that others trained: plain safetensors, and PyTorch files as an explicit conversion."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robusteval.models.build import build_network, resolve_architecture
from robusteval.models.checkpoint_info import CheckpointInfo, file_kind, read_header
from robusteval.models.checkpoints import check_state, encode_checkpoint, read_tensors
from robusteval.schema.errors import CheckpointError

_NESTED = ("state_dict", "model_state_dict", "model", "net")


def import_weights(
    path: Path,
    info: CheckpointInfo,
    *,
    strip: Sequence[str] = ("module.",),
    rename: Mapping[str, str] | None = None,
    entry: str | None = None,
) -> bytes:
    """Turn a file of bare weights into a checkpoint.

    The key map, in this order: every prefix of `strip` is cut off where it stands; then the longest prefix found in
    `rename` is replaced (`{"fc": "linear"}` makes `fc.weight` into `linear.weight`). Batch counters
    (`num_batches_tracked`) that the file lacks are set to 0; anything else must fit exactly.

    PyTorch files (.pt, .pth) are read with `torch.load(weights_only=True)`, which runs no code from the file.

    Args:
        path: a safetensors, .pt or .pth file.
        info: what the weights are.
        strip: prefixes to cut off, such as `module.` of DataParallel.
        rename: old to new prefix, on dotted-name boundaries.
        entry: name of the state dict in a PyTorch file that holds several things; by default the usual names are tried.

    Returns:
        A checkpoint, to be written to a `.safetensors` file.

    Raises:
        CheckpointError: the file cannot be read, holds more than tensors, or does not fit the architecture.
        UsageError: the architecture or its parameters are unknown.
    """
    info = info.model_copy(update={"architecture": resolve_architecture(info.architecture)})
    reference = build_network(info.architecture, info.classes, info.input_shape, seed=None).state_dict()
    state = rename_tensors(read_state(path, entry), strip, rename or {}, source=str(path))
    for name, tensor in reference.items():
        if name.endswith("num_batches_tracked") and name not in state:
            state[name] = torch.zeros_like(tensor)
    check_state(state, reference, source=str(path))
    return encode_checkpoint(info, {name: state[name].to(tensor.dtype) for name, tensor in reference.items()})


def read_state(path: Path, entry: str | None) -> dict[str, Tensor]:
    """The tensors of a safetensors, .pt or .pth file; no code from the file is run.

    Raises:
        CheckpointError: the file cannot be read, or holds more than tensors.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read the weights: {error.strerror or error}") from None
    if file_kind(data[:512]) in ("zip", "pickle"):
        return _tensors_of(_unpickle(data, source=str(path)), entry, source=str(path))
    read_header(data, source=str(path))
    return read_tensors(data, source=str(path))


def _unpickle(data: bytes, *, source: str) -> Any:
    try:
        with warnings.catch_warnings():
            # An unusual pickle protocol is warned of first and then read, or refused below.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{source}: this file cannot be read safely: it is damaged, or holds more than tensors; in the program "
            f"that wrote it, save `model.state_dict()` with safetensors.torch.save_file"
        ) from error


def _tensors_of(content: Any, entry: str | None, *, source: str) -> dict[str, Tensor]:
    """The state dict inside an unpickled file."""
    if entry is not None:
        if not isinstance(content, dict) or entry not in content:
            entries = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else type(content).__name__
            raise CheckpointError(f"{source}: the file has no entry {entry!r}; it has: {entries}")
        content = content[entry]
    else:
        for name in _NESTED:
            if isinstance(content, dict) and isinstance(content.get(name), dict):
                content = content[name]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{source}: the file holds {type(content).__name__}, not a state dict")
    odd = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if odd:
        raise CheckpointError(
            f"{source}: these entries are not tensors: {', '.join(odd[:5])}; name the state dict among them (--entry)"
        )
    return {str(name): value for name, value in content.items()}


def rename_tensors(
    state: Mapping[str, Tensor], strip: Sequence[str], rename: Mapping[str, str], *, source: str
) -> dict[str, Tensor]:
    """Apply a key map, as `import_weights` describes it.

    Raises:
        CheckpointError: two tensors get one name.
    """
    mapped: dict[str, Tensor] = {}
    for name, tensor in state.items():
        new = name
        for prefix in strip:
            new = new.removeprefix(prefix)
        new = _renamed(new, rename)
        if new in mapped:
            raise CheckpointError(f"{source}: the key map gives the name {new!r} to two tensors, one of them {name!r}")
        mapped[new] = tensor
    return mapped


def _renamed(name: str, rename: Mapping[str, str]) -> str:
    for old in sorted(rename, key=len, reverse=True):
        if name == old or name.startswith(f"{old}."):
            return rename[old] + name[len(old) :]
    return name
