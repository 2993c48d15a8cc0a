"""What identifies a model that lives in memory, so that its results can be stored and found again.

The digest covers the classes of its modules and their source code, the structure that `repr` shows, every parameter
and buffer, the declared preprocessing, and the logits on the first sixteen clean examples. The logits are there because
code that the classes call may change without them: a model that answers differently is another model. They also make
results of another device, or of another version of torch, answers about another model; that costs a second run and is
never wrong.
"""

from __future__ import annotations

import hashlib
import inspect

import torch
from torch import Tensor, nn

from robusteval.data.batches import DeviceSet
from robusteval.data.imageset import ImageSet
from robusteval.models.classifier import Classifier

_PROBES = 16


def model_digest(model: Classifier, examples: ImageSet) -> str:
    """SHA-256 that identifies a model in cell keys (64 hexadecimal characters).

    Args:
        model: the model.
        examples: clean examples of the suite; the first sixteen are predicted.
    """
    digest = hashlib.sha256(b"robusteval live model 1\x00")
    network = model.network
    digest.update(repr(network).encode())
    for kind in sorted(
        {type(part) for part in network.modules()}, key=lambda kind: (kind.__module__, kind.__qualname__)
    ):
        digest.update(f"{kind.__module__}.{kind.__qualname__}\x00{_source(kind)}\x00".encode())
    digest.update(f"{model.classes} {model.input_shape}".encode())
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        _update(digest, name, tensor)
    for name, tensor in (("mean", model.mean), ("std", model.std), ("logits", _logits(model, examples))):
        _update(digest, name, tensor)
    return digest.hexdigest()


def _source(kind: type[nn.Module]) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # defined in a console, or built in
        return ""


def _update(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    digest.update(f"\x00{name} {tensor.dtype} {tuple(tensor.shape)}\x00".encode())
    values = tensor.detach().cpu().contiguous()
    digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes() if values.numel() else b"")


def _logits(model: Classifier, examples: ImageSet) -> Tensor:
    shown = examples.take(range(min(_PROBES, len(examples))))
    before = model.passes.snapshot()
    with model.frozen(), torch.no_grad():
        batch = next(iter(DeviceSet(shown, model.device).in_order(_PROBES)))
        logits: Tensor = model(batch.images).float()
    model.passes.forward = before.forward  # identifying a model is no part of what measuring it costs
    return logits
