"""Batch norm folded into the convolution before it.

In evaluation mode a batch norm is an affine map of each channel, so `bn(conv(x))` is a convolution: with
`scale = gamma / sqrt(running_var + eps)` its weights are `scale * W` and its bias is
`beta + scale * (b - running_mean)` (Jacob et al., CVPR 2018, arXiv 1712.05877, section 3.2).
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]


def fold_batch_norms(network: nn.Module, images: Tensor) -> int:
    """Fold, in place, every batch norm that takes a convolution's output that nothing else takes.

    Pairs are found by running the network once, so any Python code in its `forward` may stay: what that call hands from
    module to module is what counts. Code that another call would run cannot be seen; the caller compares the logits.

    Args:
        network: a copy that may be changed, in evaluation mode, its parameters without gradients.
        images: (B, C, H, W) inputs of the network.

    Returns:
        Number of batch norms folded.
    """
    pairs = direct_pairs(network, images)
    for convolution, norm in pairs:
        _absorb(convolution, norm)
        _replace(network, norm, nn.Identity())
    return len(pairs)


def batch_norms(network: nn.Module) -> int:
    """Number of two-dimensional batch norms in a network."""
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@torch.no_grad()
def direct_pairs(network: nn.Module, images: Tensor) -> list[Pair]:
    """Convolutions whose output, unchanged, is the input of a batch norm and of nothing else; both called once.

    Modules with hooks of their own or of a derived class are left out: they may compute something else.

    Args:
        network: in evaluation mode.
        images: (B, C, H, W) inputs of the network.
    """
    calls: Counter[nn.Module] = Counter()
    outputs: list[_Output] = []
    takers: list[tuple[nn.BatchNorm2d, _Output]] = []

    def after_convolution(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        calls[module] += 1
        outputs.append(_Output(module, weakref.ref(output), output._version))

    def after_norm(module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        calls[module] += 1
        # The version tells an output that was changed in place on its way.
        takers.extend(
            (module, output)
            for output in outputs
            if inputs and output.tensor() is inputs[0] and inputs[0]._version == output.version
        )

    handles = [
        module.register_forward_hook(after_convolution if type(module) is nn.Conv2d else after_norm)
        for module in network.modules()
        if (type(module) is nn.Conv2d and not hooked(module)) or _foldable(module)
    ]
    try:
        with _CountUses(outputs):
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return [
        (output.convolution, norm)
        for norm, output in takers
        if calls[norm] == calls[output.convolution] == output.uses == 1
    ]


@dataclass
class _Output:
    """What a convolution returned, and how often it was used to compute a tensor."""

    convolution: nn.Conv2d
    tensor: weakref.ref[Tensor]
    version: int
    uses: int = 0


class _CountUses(TorchFunctionMode):
    """Counts the calls that compute a tensor from one of `outputs`; reading a shape is none."""

    def __init__(self, outputs: list[_Output]) -> None:
        super().__init__()
        self.outputs = outputs

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in _leaves(result)):
            taken = {id(leaf) for leaf in _leaves((args, kwargs or {}))}
            for output in self.outputs:
                tensor = output.tensor()
                output.uses += tensor is not None and id(tensor) in taken
        return result


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _foldable(module: nn.Module) -> bool:
    return (
        type(module) is nn.BatchNorm2d
        and module.running_mean is not None
        and module.running_var is not None
        and not module.training
        and not hooked(module)
    )


def hooked(module: nn.Module) -> bool:
    """Whether calling a module may do more than its class says."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or "forward" in vars(module)
    )


def _absorb(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Give the convolution the weights and bias that make the batch norm superfluous; computed in float64."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    scale = (variance.double() + norm.eps).rsqrt()
    shift = torch.zeros_like(scale)
    if norm.affine:
        scale = scale * norm.weight.detach().double()
        shift = norm.bias.detach().double()
    bias = shift - scale * mean.double()
    if convolution.bias is not None:
        bias = bias + scale * convolution.bias.detach().double()
    weight = convolution.weight.detach()
    folded = weight.double() * scale.view(-1, 1, 1, 1)
    convolution.weight = nn.Parameter(folded.to(weight.dtype), requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in network.modules():
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
