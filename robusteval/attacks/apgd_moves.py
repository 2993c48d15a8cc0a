"""Starts and steps of APGD in the three balls; every argument with J rows treats each row by itself.

linf and l2: Croce and Hein, ICML 2020, arXiv 2003.01690. l1: Croce and Hein, Mind the box: l1-APGD for sparse
adversarial attacks on image classifiers, ICML 2021, arXiv 2103.01208.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robusteval.attacks.geometry import unit_l2
from robusteval.schema.types import Norm

INERTIA = 0.75
"""Share of the projected step in a move; the rest continues the move before."""
_TINY = 1e-12


@dataclass(frozen=True)
class Stand:
    """Where J jobs stand before a move.

    Attributes:
        clean: (J, C, H, W) clean images in [0, 1].
        base: (J, C, H, W) where the move begins.
        previous: (J, C, H, W) where the move before began.
        gradient: (J, C, H, W) gradient of the loss at `base`, finite.
        step: (J,) length of the step in the norm of the ball.
        share: (J,) share of the projected step in the move, in (0, 1].
    """

    clean: Tensor
    base: Tensor
    previous: Tensor
    gradient: Tensor
    step: Tensor
    share: Tensor


def column(values: Tensor) -> Tensor:
    """(J,) as (J, 1, 1, 1)."""
    return values[:, None, None, None]


def start(clean: Tensor, noise: Tensor, norm: Norm, radius: float) -> Tensor:
    """Start of a run from its noise (J, C, H, W).

    linf: noise scaled to a largest entry of `radius`; l2: scaled to the length `radius`; l1: its projection.
    """
    if norm is Norm.L1:
        return into_l1(noise, clean, clean.new_full((len(clean),), radius))
    flat = noise.flatten(1)
    size = flat.abs().amax(dim=1) if norm is Norm.LINF else torch.linalg.vector_norm(flat, dim=1)
    return (clean + radius * (noise / (column(size) + _TINY))).clamp_(0.0, 1.0)


def move_linf(stand: Stand, epsilon: float) -> Tensor:
    """Signed step, projected, with inertia: the next iterate (J, C, H, W)."""
    low, high = (stand.clean - epsilon).clamp_(min=0.0), (stand.clean + epsilon).clamp_(max=1.0)
    aim = (stand.base + column(stand.step) * stand.gradient.sign()).clamp_(low, high)
    return _with_inertia(stand, aim).clamp_(low, high)


def move_l2(stand: Stand, epsilon: float) -> Tensor:
    """Step along the gradient, projected, with inertia: the next iterate (J, C, H, W)."""
    aim = into_l2(stand.base + column(stand.step) * unit_l2(stand.gradient), stand.clean, epsilon)
    return into_l2(_with_inertia(stand, aim), stand.clean, epsilon)


def move_l1(stand: Stand, density: Tensor, radius: Tensor) -> Tensor:
    """Signed step along the share `density` (J,) of pixels with the largest gradients, projected; no inertia.

    Args:
        stand: where the jobs stand; `previous` and `share` are not read.
        density: share of the pixels that may move, in [0, 1].
        radius: (J,) radius of each job's ball.
    """
    size = stand.gradient.flatten(1).abs()
    pixels = size.shape[1]
    rank = ((1.0 - density) * pixels).clamp(0, pixels - 1).long()
    threshold = size.sort(dim=1).values.gather(1, rank[:, None])
    direction = torch.where(size >= threshold, stand.gradient.flatten(1).sign(), 0.0)
    length = direction.abs().sum(dim=1, keepdim=True) + 1e-10
    moved = stand.base + column(stand.step) * (direction / length).view_as(stand.base)
    return into_l1(moved - stand.clean, stand.clean, radius)


def _with_inertia(stand: Stand, aim: Tensor) -> Tensor:
    """From `base` by share * (aim - base) + (1 - share) * (base - previous); consumes `aim`."""
    share = column(stand.share)
    moved = aim.sub_(stand.base).mul_(share).add_(stand.base)
    return moved.add_((stand.base - stand.previous).mul_(1.0 - share))


def into_l2(images: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """Shorten the perturbations to `epsilon`, then clamp into the pixel box; consumes `images`."""
    delta = images.sub_(clean)
    length = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    factor = (epsilon / length.clamp_min(_TINY)).clamp_max(1.0)
    return delta.mul_(column(factor)).add_(clean).clamp_(0.0, 1.0)


def into_l1(delta: Tensor, clean: Tensor, radius: Tensor) -> Tensor:
    """Nearest images to `clean + delta` in the intersection of the l1 ball and the pixel box.

    A perturbed pixel keeps its sign and has the size min(room, max(|delta| - t, 0)), with `room` the distance to the
    box on its side and the one t >= 0 at which the sizes add up to the radius (0 if they do not exceed it). Their sum
    falls piecewise linearly in t, with kinks at |delta| - room and |delta|: t comes from one sort of the kinks.

    Args:
        delta: (J, C, H, W) perturbations.
        clean: (J, C, H, W) images in [0, 1].
        radius: (J,) positive radii.

    Returns:
        (J, C, H, W) images; pixels that are not perturbed are exactly those of `clean`.
    """
    flat, origin = delta.flatten(1), clean.flatten(1)
    size = flat.abs()
    room = torch.where(flat > 0, 1.0 - origin, origin)
    total = torch.minimum(size, room).sum(dim=1, keepdim=True, dtype=torch.float64)
    kinks, order = torch.cat([(size - room).clamp_(min=0.0), size], dim=1).sort(dim=1)
    shrinking = torch.where(order < size.shape[1], 1, -1).cumsum(dim=1)
    falls = kinks.diff(dim=1).double().mul_(shrinking[:, :-1]).cumsum_(dim=1)
    sums = total - torch.cat([torch.zeros_like(total), falls], dim=1)
    excess = sums - radius.double()[:, None]
    last = (excess >= 0).sum(dim=1, keepdim=True).sub_(1).clamp_(min=0)
    slope = shrinking.gather(1, last).clamp_(min=1)
    threshold = kinks.gather(1, last) + excess.gather(1, last) / slope
    threshold = torch.where(total > radius[:, None], threshold, 0.0).to(size.dtype)
    kept = torch.minimum((size - threshold).clamp_(min=0.0), room)
    return (origin + flat.sign() * kept).clamp_(0.0, 1.0).view_as(clean)
