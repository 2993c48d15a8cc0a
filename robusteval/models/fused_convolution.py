"""A convolution with a sum and a ReLU in one step of oneDNN, and its gradient with respect to the input alone.

With stride one that gradient is a convolution again, with the kernels turned by 180 degrees and input and output
channels exchanged.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _Convolving(NamedTuple):
    """What oneDNN is told besides the input, in its order; put together once, since small batches feel each lookup."""

    weight: Tensor
    bias: Tensor | None
    pads: list[int]
    strides: list[int]
    dilations: list[int]
    groups: int


class FusedConvolution(nn.Module):
    """A convolution, then the sum with another tensor if one is given, then a ReLU if `rectifies`.

    Gradients reach its inputs, never its weights.

    Args:
        convolution: weights, bias and geometry.
        rectifies: whether a ReLU ends it.
        size: (B, C, H, W) of a typical input, for which the weights are laid out; any other is computed as well.
    """

    def __init__(self, convolution: nn.Conv2d, *, rectifies: bool, size: tuple[int, ...]) -> None:
        super().__init__()
        self.convolution = convolution
        self.rectifies = rectifies
        self.size = size
        self._forward: _Convolving | None = None
        self._backward: _Convolving | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy may get other weights, and lays them out by itself.
        return self.__dict__ | {"_forward": None, "_backward": None}

    def forward(self, inputs: Tensor, other: Tensor | None = None) -> Tensor:
        """(B, C, H, W) to the output of the convolution; `other` has the output's shape."""
        if torch.is_grad_enabled() and (inputs.requires_grad or (other is not None and other.requires_grad)):
            found: Tensor = _WithInputGradient.apply(inputs, other, self)
            return found
        return self.compute(inputs, other)

    def compute(self, inputs: Tensor, other: Tensor | None) -> Tensor:
        """The output, without a graph."""
        if self._forward is None:
            self._forward = self._laid_out()
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        if other is None:
            return _pointwise(inputs, self._forward, "relu" if self.rectifies else "none")
        return _added(inputs, other, self._forward, "relu" if self.rectifies else None)

    def rectified(self, gradient: Tensor, output: Tensor) -> Tensor:
        """Gradient of what the ReLU got, channels last, from that of its output."""
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return torch.ops.aten.threshold_backward(gradient, output, 0) if self.rectifies else gradient

    def input_gradient(self, gradient: Tensor, inputs: Tensor, other: Tensor | None = None) -> Tensor:
        """Gradient of the inputs from that of the convolution's output, both channels last; of `inputs` the shape.

        `other` is a gradient of the same inputs by another way, which is added.
        """
        if self._backward is None and self._turns:
            self._backward = self._turned(tuple(gradient.shape))
        if self._backward is None:
            found = self._library_gradient(gradient, inputs)
            return found if other is None else found + other
        if other is None:
            return _pointwise(gradient, self._backward, "none")
        return _added(gradient, other, self._backward, None)

    def _library_gradient(self, gradient: Tensor, inputs: Tensor) -> Tensor:
        convolution = self.convolution
        found, _, _ = torch.ops.aten.convolution_backward(
            gradient,
            inputs,
            convolution.weight,
            None,
            list(convolution.stride),
            self._pads,
            list(convolution.dilation),
            False,
            [0, 0],
            convolution.groups,
            [True, False, False],
        )
        return cast(Tensor, found)

    def _laid_out(self) -> _Convolving:
        plain, weight = self.convolution, self.convolution.weight.detach().contiguous()
        geometry = self._pads, list(plain.stride), list(plain.dilation), plain.groups
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, list(self.size))
        return _Convolving(packed, plain.bias, *geometry)

    def _turned(self, size: tuple[int, ...]) -> _Convolving:
        turned = self.convolution.weight.detach().flip(2, 3).transpose(0, 1).contiguous()
        geometry = self._turned_pads, [1, 1], list(self.convolution.dilation), 1
        packed = torch.ops.mkldnn._reorder_convolution_weight(turned, *geometry, list(size))
        return _Convolving(packed, None, *geometry)

    @property
    def _turns(self) -> bool:
        plain = self.convolution
        return plain.groups == 1 and tuple(plain.stride) == (1, 1) and min(self._turned_pads) >= 0

    @property
    def _turned_pads(self) -> list[int]:
        reach = zip(self.convolution.dilation, self.convolution.kernel_size, self._pads, strict=True)
        return [dilation * (kernel - 1) - pad for dilation, kernel, pad in reach]

    @property
    def _pads(self) -> list[int]:
        return list(cast(tuple[int, int], self.convolution.padding))


class FusedResidual(nn.Module):
    """Convolutions in a row, the last of which adds what the first one got.

    One step for the graph, so that the gradient of the shortcut is added where the first convolution's is made.

    Args:
        convolutions: at least one; each takes what the one before it gives.
    """

    def __init__(self, convolutions: list[FusedConvolution]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        self._steps = tuple(convolutions)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        if torch.is_grad_enabled() and inputs.requires_grad:
            found: Tensor = _ResidualWithInputGradient.apply(inputs, self)
            return found
        return self.compute(inputs)[-1]

    def compute(self, inputs: Tensor) -> list[Tensor]:
        """The output of each convolution, without a graph."""
        found, last = [inputs], self._steps[-1]
        for step in self._steps:
            found.append(step.compute(found[-1], inputs if step is last else None))
        return found[1:]

    def input_gradient(self, gradient: Tensor, inputs: Tensor, outputs: list[Tensor]) -> Tensor:
        """Gradient of the inputs from that of the output."""
        before = [inputs, *outputs[:-1]]
        around = gradient = self._steps[-1].rectified(gradient, outputs[-1])
        for place in reversed(range(len(outputs))):
            step = self._steps[place]
            if step is not self._steps[-1]:
                gradient = step.rectified(gradient, outputs[place])
            gradient = step.input_gradient(gradient, before[place], around if place == 0 else None)
        return gradient


class _WithInputGradient(torch.autograd.Function):
    """A fused convolution whose inputs get gradients."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, other: Tensor | None, module: FusedConvolution) -> Tensor:
        output = module.compute(inputs, other)
        ctx.module, ctx.adds = module, other is not None
        ctx.save_for_backward(inputs, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        inputs, output = ctx.saved_tensors
        gradient = ctx.module.rectified(gradient, output)
        reaches = ctx.module.input_gradient(gradient, inputs) if ctx.needs_input_grad[0] else None
        return reaches, gradient if ctx.adds else None, None


class _ResidualWithInputGradient(torch.autograd.Function):
    """A fused residual block whose input gets a gradient."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, module: FusedResidual) -> Tensor:
        outputs = module.compute(inputs)
        ctx.module = module
        ctx.save_for_backward(inputs, *outputs)
        return outputs[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        inputs, *outputs = ctx.saved_tensors
        return ctx.module.input_gradient(gradient, inputs, outputs), None


def _pointwise(inputs: Tensor, how: _Convolving, unary: str) -> Tensor:
    found: Tensor = torch.ops.mkldnn._convolution_pointwise(inputs, *how, unary, [], "")
    return found


def _added(inputs: Tensor, other: Tensor, how: _Convolving, unary: str | None) -> Tensor:
    """The convolution plus `other`, then `unary` of both."""
    other, (weight, bias, *geometry) = other.contiguous(memory_format=torch.channels_last), how
    found: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
        inputs, other, weight, bias, *geometry, "add", 1.0, unary, [], ""
    )
    return found
