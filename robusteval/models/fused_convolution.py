"""A convolution with a sum and a ReLU in one step of oneDNN, and its gradient with respect to the input alone.

With stride one that gradient is a convolution again, with the kernels turned by 180 degrees and input and output
channels exchanged.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


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
        self._packed: dict[str, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A copy may get other weights, and lays them out by itself.
        return self.__dict__ | {"_packed": {}}

    def forward(self, inputs: Tensor, other: Tensor | None = None) -> Tensor:
        """(B, C, H, W) to the output of the convolution; `other` has the output's shape."""
        if torch.is_grad_enabled() and (inputs.requires_grad or (other is not None and other.requires_grad)):
            found: Tensor = _WithInputGradient.apply(inputs, other, self)
            return found
        return self.compute(inputs, other)

    def compute(self, inputs: Tensor, other: Tensor | None) -> Tensor:
        """The output, without a graph."""
        if "forward" not in self._packed:
            self._packed["forward"] = self._laid_out(self.convolution.weight, self._pads, self._strides, self.size)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        weight, bias, unary = self._packed["forward"], self.convolution.bias, "relu" if self.rectifies else "none"
        geometry = (self._pads, self._strides, self._dilations, self.convolution.groups)
        if other is None:
            return _pointwise(inputs, weight, bias, *geometry, unary, [], "")
        other = other.contiguous(memory_format=torch.channels_last)
        attributes: tuple[Any, ...] = ("add", 1.0, unary if self.rectifies else None, [], "")
        found: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
            inputs, other, weight, bias, *geometry, *attributes
        )
        return found

    def input_gradient(self, gradient: Tensor, inputs: Tensor) -> Tensor:
        """Gradient of the inputs from that of the convolution's output, both channels last; of `inputs` the shape."""
        if not self._turns:
            return self._library_gradient(gradient, inputs)
        kernel, pads = self.convolution.weight, self._turned_pads
        if "backward" not in self._packed:
            turned = kernel.flip(2, 3).transpose(0, 1).contiguous()
            self._packed["backward"] = self._laid_out(turned, pads, [1, 1], tuple(gradient.shape))
        return _pointwise(gradient, self._packed["backward"], None, pads, [1, 1], self._dilations, 1, "none", [], "")

    def _library_gradient(self, gradient: Tensor, inputs: Tensor) -> Tensor:
        found, _, _ = torch.ops.aten.convolution_backward(
            gradient,
            inputs,
            self.convolution.weight,
            None,
            self._strides,
            self._pads,
            self._dilations,
            False,
            [0, 0],
            self.convolution.groups,
            [True, False, False],
        )
        return cast(Tensor, found)

    def _laid_out(self, weight: Tensor, pads: list[int], strides: list[int], size: tuple[int, ...]) -> Tensor:
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            weight.detach().contiguous(), pads, strides, self._dilations, self.convolution.groups, list(size)
        )
        return packed

    @property
    def _turns(self) -> bool:
        return self.convolution.groups == 1 and self._strides == [1, 1] and min(self._turned_pads) >= 0

    @property
    def _turned_pads(self) -> list[int]:
        reach = zip(self._dilations, self.convolution.kernel_size, self._pads, strict=True)
        return [dilation * (kernel - 1) - pad for dilation, kernel, pad in reach]

    @property
    def _pads(self) -> list[int]:
        return list(cast(tuple[int, int], self.convolution.padding))

    @property
    def _strides(self) -> list[int]:
        return list(self.convolution.stride)

    @property
    def _dilations(self) -> list[int]:
        return list(self.convolution.dilation)


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
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        if ctx.module.rectifies:
            gradient = torch.ops.aten.threshold_backward(gradient, output, 0)
        reaches = ctx.module.input_gradient(gradient, inputs) if ctx.needs_input_grad[0] else None
        return reaches, gradient if ctx.adds else None, None


def _pointwise(*arguments: Any) -> Tensor:
    found: Tensor = torch.ops.mkldnn._convolution_pointwise(*arguments)
    return found
