"""Shortest step from a point of the pixel box onto a hyperplane, without leaving the box.

The step in FAB (Croce and Hein, ICML 2020, arXiv 1907.02044, section 3.2). For a point x, a normal w and the signed gap
g = <w, x> - b it is

    argmin ||d||_p   subject to   <w, x + d> = b,  0 <= x + d <= 1.

Every pixel that moves goes against sign(g) sign(w_i), and has room r_i in that direction. With weights |w_i| and the
need |g|, what is left is one number for each point:

    linf   d_i = min(t, r_i),        sum |w_i| min(t, r_i)       = |g|
    l2     d_i = min(t |w_i|, r_i),  sum |w_i| min(t |w_i|, r_i) = |g|
    l1     pixels with large |w_i| use up their room first; the last one moves as far as is still needed.

The sums are concave, piecewise linear and increasing in t. Newton's method from t = 0 then never overshoots: each step
either fills the room of another pixel or is the exact solution. No sort is needed, and few steps are, because few
pixels run out of room on their way to a boundary nearby.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from robusteval.schema.types import Norm

LOOK_EVERY = 4
"""Newton steps between two looks at convergence on an accelerator, where a look waits for the device."""
CACHED = 2**15
"""Pixels worked on at once on a CPU, so that intermediate results stay in the cache."""


def step_to_hyperplane(points: Tensor, normals: Tensor, gaps: Tensor, norm: Norm) -> Tensor:
    """Shortest step of each point onto its hyperplane inside the box.

    A step depends on its own point and normal alone.

    Args:
        points: (..., J, d) float32 in [0, 1]; leading dimensions share the normals.
        normals: (J, d) finite normals w, of any scale.
        gaps: (..., J) signed gaps <w, x> - b.
        norm: the norm in which the step is shortest.

    Returns:
        (..., J, d) steps. Where the box does not reach the hyperplane, the step to the corner that comes nearest to
        it; zero where the normal is zero.
    """
    steps = torch.empty_like(points)
    for rows in row_blocks(normals):
        steps[..., rows, :] = _step(points[..., rows, :], normals[rows], gaps[..., rows], norm)
    return steps


def row_blocks(vectors: Tensor) -> Iterator[slice]:
    """Slices of the rows of (J, d) vectors: on a CPU blocks that stay in its cache, elsewhere all rows at once."""
    count, width = vectors.shape
    block = max(1, CACHED // width) if vectors.device.type == "cpu" else max(1, count)
    for begin in range(0, count, block):
        yield slice(begin, begin + block)


def _step(points: Tensor, normals: Tensor, gaps: Tensor, norm: Norm) -> Tensor:
    weight = normals.abs()
    scale = weight.amax(dim=-1, keepdim=True)
    scale = torch.where(scale > 0, scale, 1.0)
    # Squares of gradients near 1e-25 would underflow.
    weight = weight / scale
    need = gaps.abs().unsqueeze(-1) / scale
    direction = -normals.sign() * gaps.sign().unsqueeze(-1)
    # Upwards the room is 1 - x, downwards x, and where the normal is zero there is none.
    room = (direction.clamp_min(0.0) - points * direction).clamp_min(0.0)
    if norm is Norm.LINF:
        level = _level(room, weight, weight * room, need)
        return direction * torch.minimum(level, room)
    if norm is Norm.L2:
        full_at = room / torch.where(weight > 0, weight, 1.0)
        level = _level(full_at, weight.square(), weight * room, need)
        return direction * torch.minimum(level * weight, room)
    return direction * _greedy(weight, room, need)


def _level(full_at: Tensor, slope: Tensor, capacity: Tensor, need: Tensor) -> Tensor:
    """Solve sum_i min(t * slope_i, capacity_i) = need for t >= 0.

    Args:
        full_at: (..., d) the t at which a pixel has no room left; zero for pixels that do not count.
        slope: (..., d) what a pixel adds for each unit of t while it moves.
        capacity: (..., d) what a pixel adds in all.
        need: (..., 1) the sum to reach.

    Returns:
        (..., 1) the solution; the largest float where the capacities do not suffice.
    """
    largest = torch.finfo(slope.dtype).max
    level = need / slope.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(slope.dtype).tiny)
    # Comparisons are written as floats: on a CPU, selecting by a bool mask takes six times as long as a product.
    mask, steps = torch.empty_like(full_at), 0
    while True:
        used = torch.le(full_at, level, out=mask).mul_(capacity).sum(dim=-1, keepdim=True)
        growth = torch.gt(full_at, level, out=mask).mul_(slope).sum(dim=-1, keepdim=True)
        newton = torch.where(growth > 0, (need - used) / growth, largest)
        # The step depends on the set of full pixels alone, so a level that has converged stays as it is.
        before, level = level, torch.where(need > 0, torch.maximum(level, newton), level).clamp_max(largest)
        steps += 1
        if (level.device.type == "cpu" or steps % LOOK_EVERY == 0) and not bool((level > before).any()):
            return level


def _greedy(weight: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """How far each pixel moves in l1: all its room in the order of the weights, until the need is met."""
    order = weight.argsort(dim=-1, descending=True, stable=True).expand_as(room)
    ordered_weight = weight.expand_as(room).gather(-1, order)
    ordered_room = room.gather(-1, order)
    capacity = (ordered_weight * ordered_room).double()
    missing = need.double() - (capacity.cumsum(dim=-1) - capacity)
    wanted = missing.clamp_min(0.0) / torch.where(ordered_weight > 0, ordered_weight, 1.0)
    moved = torch.minimum(wanted.to(room.dtype), ordered_room)
    return torch.zeros_like(room).scatter(-1, order, moved)
