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
    low = places.detach().floor()
    above = places - low
    corners = low.long()
    flat = nodes.flatten(2)
    strides = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    total = nodes.new_zeros(nodes.shape[0], nodes.shape[1], places.shape[2])
    for corner in itertools.product((0, 1), repeat=len(sizes)):
        weight = places.new_ones(())
        index = torch.zeros((), dtype=torch.int64, device=places.device)
        for axis, upper in enumerate(corner):
            at = corners[:, axis] + upper
            inside = (at >= 0) & (at < sizes[axis])
            share = above[:, axis] if upper else 1.0 - above[:, axis]
            weight = weight * torch.where(inside, share, 0.0)
            index = index + at.clamp(0, sizes[axis] - 1) * strides[axis]
        values = flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1))
        total = total + weight[:, None] * values
    return total
