"""Multilinear interpolation between the nodes of a regular grid: 2 axes in images, one a channel in colour maps."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor


def interpolate(nodes: Tensor, places: Tensor) -> Tensor:
    """Value at each place: linear along every axis, zero outside the grid.

    At a node the result is bit for bit the node's value, because the weights there are exactly one and zero.

    Args:
        nodes: (B, C, N_1, ..., N_D) float64 values at the nodes.
        places: (B, D, M) float64 coordinates in node units: 0 is the first node of an axis, N_d - 1 the last.

    Returns:
        (B, C, M) float64; differentiable in `nodes`, and in `places` between the nodes.
    """
    sizes = nodes.shape[2:]
    sides = [_sides(places[:, axis], size, math.prod(sizes[axis + 1 :])) for axis, size in enumerate(sizes)]
    flat = nodes.flatten(2)
    total = nodes.new_zeros(())
    for corner in itertools.product(*sides):
        (weight, index), *others = corner
        for share, offset in others:
            weight, index = weight * share, index + offset
        values = flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1))
        total = total + values * weight[:, None]
    return total


def _sides(place: Tensor, size: int, stride: int) -> list[tuple[Tensor, Tensor]]:
    """Weight and offset among the flat nodes, (B, M) each, of the nodes below and above each place on one axis."""
    low = place.detach().floor()
    above = place - low
    found = []
    for node, share in ((low.long(), 1.0 - above), (low.long() + 1, above)):
        inside = (node >= 0) & (node < size)
        found.append((torch.where(inside, share, 0.0), node.clamp(0, size - 1) * stride))
    return found
