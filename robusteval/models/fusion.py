"""Convolutions that add and rectify before they write, for searching on a CPU.

Between two convolutions of a small network most of the time goes into reading and writing whole activations: one pass
for the sum with the shortcut, one for the ReLU. oneDNN does both while a convolution's result is still in a register,
which leaves the convolutions alone (`fused_convolution`).

Fused networks compute what the unfused ones do up to the rounding of the sum. They are traced from one call, so the
caller compares the logits.
"""

from __future__ import annotations

import copy
import operator
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable
from torch.fx.passes.shape_prop import ShapeProp

from robusteval.models.classifier import MIN_BATCH
from robusteval.models.folding import hooked
from robusteval.models.fused_convolution import FusedConvolution, FusedResidual
from robusteval.models.low_precision import has_onednn

TYPICAL = 64
"""Batch size for which weights are laid out; others are computed as well."""
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_RECTIFIERS = (torch.relu, torch.relu_, nn.functional.relu)
_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout2d)


def fuse_convolutions(network: nn.Module, images: Tensor) -> nn.Module:
    """The same network with its convolutions, sums and ReLUs in one step each, where they follow each other.

    Args:
        network: a copy that may be used up, in evaluation mode, on a CPU, its parameters without gradients.
        images: (B, C, H, W) inputs of the network, in its type and memory layout.

    Raises:
        ValueError: nothing can be fused: no convolution, hooks that tracing would lose, or no oneDNN.
        RuntimeError: the network's control flow depends on its input (with TypeError, as torch.fx raises them).
    """
    if not has_onednn():
        raise ValueError("this build of torch lacks oneDNN")
    if any(hooked(module) for module in network.modules()):
        raise ValueError("modules have hooks")
    traced = fx.symbolic_trace(network)
    ShapeProp(traced).propagate(images)
    _drop_transparent(traced)
    convolutions = [node for node in traced.graph.nodes if _is_convolution(traced, node)]
    if not convolutions:
        raise ValueError("the network has no convolution")
    for node in convolutions:
        _fuse(traced, node)
    for node in list(traced.graph.nodes):
        _join_residual(traced, node)
    _keep_gradients_channels_last(traced)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def finish_in_float32(fused: nn.Module, original: nn.Module) -> None:
    """Let a fused network in low precision compute what follows its last convolution in float32, in place.

    Pooling averages the rounding of the convolutions away; rounding its result and the logits would bring it back.
    Where what follows is more than calls of modules and functions, nothing is changed.

    Args:
        fused: from `fuse_convolutions`.
        original: the network in float32, with the same modules.
    """
    assert isinstance(fused, fx.GraphModule)
    nodes = list(fused.graph.nodes)
    last = max(place for place, node in enumerate(nodes) if _is_fused(fused, node, FusedConvolution, FusedResidual))
    behind = nodes[last + 1 :]
    if any(node.op == "get_attr" for node in behind):
        return
    for node in behind:
        if node.op == "call_module":
            fused.set_submodule(str(node.target), copy.deepcopy(original.get_submodule(str(node.target))))
    with fused.graph.inserting_after(nodes[last]):
        widened = fused.graph.call_method("float", (nodes[last],))
    nodes[last].replace_all_uses_with(widened, delete_user_cb=lambda user: user is not widened)
    fused.recompile()


class SteadyLinear(nn.Module):
    """A linear layer that pads its rows to `MIN_BATCH`: one or two rows are summed in another order than many.

    Args:
        linear: the layer.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, rows: Tensor) -> Tensor:
        """(B, I) to (B, O), each row with the bits it has among many."""
        short = MIN_BATCH - len(rows)
        if rows.dim() != 2 or short <= 0:
            found: Tensor = self.linear(rows)
            return found
        padded: Tensor = self.linear(nn.functional.pad(rows, (0, 0, 0, short)))
        return padded[: len(rows)]


def steady_linears(network: nn.Module) -> None:
    """Let the linear layers of a network give a row the same bits in any company, in place."""
    for name, module in list(network.named_modules()):
        if type(module) is nn.Linear and name:
            network.set_submodule(name, SteadyLinear(module))


class _Slice(torch.autograd.Function):
    """`maps[index]`, with a gradient that stays channels last: one in another layout slows all that it is added to."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, index: tuple[slice, ...]) -> Tensor:
        ctx.shape, ctx.index = maps.shape, index
        return maps[index]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        whole = torch.zeros_like(gradient.new_empty(()).expand(ctx.shape), memory_format=torch.channels_last)
        whole[ctx.index] = gradient
        return whole, None


def _sliced(maps: Tensor, index: tuple[slice, ...]) -> Tensor:
    found: Tensor = _Slice.apply(maps, index)
    return found


def _is_fused(fused: fx.GraphModule, node: fx.Node, *kinds: type[nn.Module]) -> bool:
    return node.op == "call_module" and isinstance(_module(fused, node), kinds or FusedConvolution)


def _drop_transparent(traced: fx.GraphModule) -> None:
    """Take modules out that hand on what they get."""
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and isinstance(_module(traced, node), _TRANSPARENT):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)


def _fuse(traced: fx.GraphModule, node: fx.Node) -> None:
    """Replace a convolution, and the sum and the ReLU that alone take its output, by one module."""
    last, other = node, None
    taker = _only_taker(node)
    if taker is not None and (other := _added(node, taker)) is not None:
        last, taker = taker, _only_taker(taker)
    rectifies = taker is not None and _rectifies(traced, taker)
    if rectifies and taker is not None:
        last = taker
    inputs = cast(fx.Node, node.args[0])
    convolution = _module(traced, node)
    assert isinstance(convolution, nn.Conv2d)
    name = f"fused_{node.name}"
    fused = FusedConvolution(convolution, rectifies=rectifies, size=(TYPICAL, *_shape(inputs)[1:]))
    traced.add_module(name, fused.eval())
    with traced.graph.inserting_after(last):
        made = traced.graph.call_module(name, (inputs,) if other is None else (inputs, other))
        made.meta = dict(last.meta)
    last.replace_all_uses_with(made)
    for used_up in (last, *([] if last is node else _between(node, last)), node):
        if not used_up.users and used_up in traced.graph.nodes:
            traced.graph.erase_node(used_up)


def _join_residual(traced: fx.GraphModule, last: fx.Node) -> None:
    """Replace a row of fused convolutions by one module, if `last` ends it by adding what the first one takes."""
    if not _is_fused(traced, last) or len(last.args) != 2:
        return
    before, shortcut = last.args
    row = [last]
    while isinstance(before, fx.Node) and before is not shortcut:
        if not _is_fused(traced, before) or len(before.args) != 1 or _only_taker(before) is not row[0]:
            return
        row.insert(0, before)
        before = before.args[0]
    if before is not shortcut:
        return
    modules = [cast(FusedConvolution, _module(traced, node)) for node in row]
    name = f"residual_{last.name}"
    traced.add_module(name, FusedResidual(modules).eval())
    with traced.graph.inserting_after(last):
        made = traced.graph.call_module(name, (shortcut,))
        made.meta = dict(last.meta)
    last.replace_all_uses_with(made)
    for node in reversed(row):
        traced.graph.erase_node(node)


def _keep_gradients_channels_last(traced: fx.GraphModule) -> None:
    for node in traced.graph.nodes:
        if node.op == "call_function" and node.target is operator.getitem and len(_shape(node)) == 4:
            maps, index = node.args
            if isinstance(index, tuple) and all(isinstance(part, slice) for part in index) and len(_shape(maps)) == 4:
                node.target = _sliced


def _between(first: fx.Node, last: fx.Node) -> list[fx.Node]:
    """The sum between a convolution and the ReLU, once the ReLU is gone."""
    return [user for user in first.users if user is not last]


def _only_taker(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _added(node: fx.Node, taker: fx.Node) -> fx.Node | None:
    """What `taker` adds to the output of `node`, if it adds something of the same shape."""
    is_sum = (taker.op == "call_function" and taker.target in _ADDITIONS) or (
        taker.op == "call_method" and taker.target in ("add", "add_")
    )
    if not is_sum or len(taker.args) != 2 or taker.kwargs:
        return None
    first, second = taker.args
    # A sum in place changes its first term, which others may read.
    in_place = taker.target in (operator.iadd, "add_")
    other = second if first is node else first
    if not isinstance(other, fx.Node) or other is node or (in_place and first is not node):
        return None
    return other if _shape(other) == _shape(node) else None


def _rectifies(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return type(_module(traced, node)) is nn.ReLU
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return node.op == "call_function" and node.target in _RECTIFIERS


def _is_convolution(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
        return False
    module = _module(traced, node)
    return type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _module(traced: fx.GraphModule, node: fx.Node) -> nn.Module:
    return traced.get_submodule(str(node.target))


def _shape(node: fx.Node) -> tuple[int, ...]:
    described = node.meta.get("tensor_meta")
    return tuple(getattr(described, "shape", ()))
