"""Batch norm over the examples of several processes (synchronised batch norm), on any device, and differentiable.

    mean = sum(x) / n,  var = sum((x - mean)^2) / n,  y = weight (x - mean) / sqrt(var + eps) + bias

Sums and n are over the batch of all processes; the gradient runs through both sums. Running statistics are updated as
one process does it, with the unbiased variance. torch's own `SyncBatchNorm` needs an accelerator.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from robusteval.methods.parallel import Ranks
from robusteval.schema.errors import UsageError


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class _Shared(_BatchNorm):
    """Batch norm whose statistics are those of all processes; in evaluation mode it is the plain one."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise (N, C, ...)."""
        if not self.training:
            return super().forward(inputs)
        values = inputs.float()
        axes = [axis for axis in range(values.dim()) if axis != 1]
        n = torch.full((1,), values.numel() / values.shape[1], dtype=values.dtype, device=values.device)
        sums = _SumOverRanks.apply(torch.cat([values.sum(axes), n]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = values - _along_channels(mean, values)
        variance = _SumOverRanks.apply(centred.square().sum(axes)) / total
        self._track(mean.detach(), variance.detach(), total)
        normal = centred * _along_channels(torch.rsqrt(variance + self.eps), values)
        if self.affine:
            normal = normal * _along_channels(self.weight, values) + _along_channels(self.bias, values)
        return normal.to(inputs.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, total: Tensor) -> None:
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance * (total / (total - 1.0)), rate)


class _Shared1d(_Shared, nn.BatchNorm1d):
    pass


class _Shared2d(_Shared, nn.BatchNorm2d):
    pass


class _Shared3d(_Shared, nn.BatchNorm3d):
    pass


_SHARED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _Shared1d,
    nn.BatchNorm2d: _Shared2d,
    nn.BatchNorm3d: _Shared3d,
}


def _along_channels(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.dim() - 2))


@contextmanager
def batch_norm_over(ranks: Ranks, model: nn.Module, *, frozen: bool) -> Iterator[None]:
    """Inside, batch norm in training mode is over the examples of all processes.

    Modules stay the objects that they are, with their parameters, buffers and hooks.

    Args:
        ranks: the processes.
        model: the model.
        frozen: batch norm stays in evaluation mode throughout, so that there is nothing to share.

    Raises:
        UsageError: the model has a norm that gathers statistics in a way of its own.
    """
    layers: list[tuple[nn.Module, type[nn.Module]]] = []
    if ranks.count > 1 and not frozen:
        for name, module in model.named_modules():
            if type(module) in _SHARED:
                layers.append((module, type(module)))
            elif isinstance(module, _NormBase) and module.track_running_stats:
                raise UsageError(
                    f"layer {name!r} is a {type(module).__name__}, whose statistics cannot be shared among "
                    f"{ranks.count} processes; train it in one (no gpus or ranks), or with batch_norm: frozen"
                )
    try:
        for module, kind in layers:
            module.__class__ = _SHARED[kind]
        yield
    finally:
        for module, kind in layers:
            module.__class__ = kind
