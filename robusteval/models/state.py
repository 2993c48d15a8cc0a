"""Arithmetic on state dicts."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, lerp


def lerp_state(a: Mapping[str, Tensor], b: Mapping[str, Tensor], t: float) -> dict[str, Tensor]:
    """Interpolate two models: `a + t * (b - a)` for floating-point tensors, batch-norm statistics included.

    Integer tensors (batch counters) come from `b`. The ends are exact: t = 0 is a bitwise copy of `a`, t = 1 of `b`,
    integers included.

    Args:
        a: state dict at t = 0.
        b: state dict at t = 1; same names, shapes and dtypes.
        t: position in [0, 1].

    Returns:
        New tensors; neither input is aliased.

    Raises:
        ValueError: t lies outside [0, 1], or the states are not of one architecture.
    """
    if not 0.0 <= t <= 1.0:
        raise ValueError(f"the position between two states must be in [0, 1], not {t}")
    if a.keys() != b.keys():
        raise ValueError(f"the states have different tensors: {', '.join(sorted(a.keys() ^ b.keys())[:5])}")
    for name in a:
        if a[name].shape != b[name].shape or a[name].dtype != b[name].dtype:
            raise ValueError(f"{name} is {_described(a[name])} in one state and {_described(b[name])} in the other")
    if t in (0.0, 1.0):
        return {name: tensor.detach().clone() for name, tensor in (b if t else a).items()}
    return {
        name: lerp(a[name].detach(), b[name].detach(), t) if b[name].is_floating_point() else b[name].detach().clone()
        for name in a
    }


def _described(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"
