"""What happens to batch norm while a method trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Every batch-norm layer, subclasses included."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def freeze_batch_norm(model: nn.Module) -> None:
    """Put batch norm into evaluation mode: it normalises with its running statistics and does not change them."""
    for module in batch_norms(model):
        module.eval()


@contextmanager
def running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Forwards inside normalise as before but change no running mean, variance or batch count.

    Setting the momentum to 0 would keep mean and variance, yet still count the batch.
    """
    layers = [(module, module.track_running_stats) for module in batch_norms(model)]
    try:
        for module, _ in layers:
            module.track_running_stats = False
        yield
    finally:
        for module, tracked in layers:
            module.track_running_stats = tracked
