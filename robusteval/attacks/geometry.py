"""Balls and boxes: perturbation sizes, Euclidean projections, clipping, and random starts.

Everything here works on batches of images, (B, C, H, W) float32 in [0, 1], and on each example by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robusteval.data.randomness import keyed_normal, keyed_uniform
from robusteval.schema.types import Norm, ThreatModel


def _per_example(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *([1] * (like.ndim - 1)))


def perturbation_norm(delta: Tensor, norm: Norm) -> Tensor:
    """Size of each perturbation.

    Args:
        delta: (B, ...) differences.
        norm: which norm.

    Returns:
        (B,) float32; summed in float64, so that many small pixels do not lose digits.
    """
    flat = delta.flatten(1)
    if norm is Norm.LINF:
        return flat.abs().amax(dim=1).float()
    order = 2 if norm is Norm.L2 else 1
    length: Tensor = torch.linalg.vector_norm(flat.double(), ord=order, dim=1)
    return length.float()


def project_linf(delta: Tensor, epsilon: float) -> Tensor:
    """Nearest point of the linf ball: every pixel is clamped."""
    return delta.clamp(-epsilon, epsilon)


def project_l2(delta: Tensor, epsilon: float) -> Tensor:
    """Nearest point of the l2 ball: too long perturbations are shortened."""
    length = torch.linalg.vector_norm(delta.flatten(1).double(), dim=1)
    factor = (epsilon / length.clamp_min(torch.finfo(torch.float64).tiny)).clamp_max(1.0)
    return delta * _per_example(factor.to(delta.dtype), delta)


def project_l1(delta: Tensor, epsilon: float) -> Tensor:
    """Nearest point of the l1 ball: soft thresholding (Duchi et al., ICML 2008), by one sort."""
    flat = delta.flatten(1).double()
    size = flat.abs()
    ordered = size.sort(dim=1, descending=True).values
    excess = ordered.cumsum(dim=1) - epsilon
    rank = torch.arange(1, size.shape[1] + 1, device=delta.device, dtype=torch.float64)
    active = ((ordered * rank) > excess).sum(dim=1, keepdim=True).clamp_min(1)
    threshold = (excess.gather(1, active - 1) / active).clamp_min(0.0)
    shrunk = flat.sign() * (size - threshold).clamp_min(0.0)
    inside = size.sum(dim=1, keepdim=True) <= epsilon
    return torch.where(inside, flat, shrunk).to(delta.dtype).view_as(delta)


def project_box(images: Tensor) -> Tensor:
    """Nearest point of the pixel box [0, 1]."""
    return images.clamp(0.0, 1.0)


def project_into(images: Tensor, clean: Tensor, norm: Norm, epsilon: float) -> Tensor:
    """Bring images into the ball around `clean` and into the pixel box.

    The box never undoes the ball: `clean` lies in the box, so clamping a pixel moves it towards its clean value.
    The linf ball is clamped as `[clean - epsilon, clean + epsilon]`.

    Returns:
        (B, C, H, W); a pixel exceeds its bounds by no more than the float32 rounding of `clean + delta`, at most
        2 ** -24 (6e-8) a pixel, and the l1 and l2 balls by no more than the sum of these plus 1e-6 of the radius.
    """
    if norm is Norm.LINF:
        inside = torch.minimum(torch.maximum(images, clean - epsilon), clean + epsilon)
    elif norm is Norm.L2:
        inside = clean + project_l2(images - clean, epsilon)
    else:
        inside = clean + project_l1(images - clean, epsilon)
    return project_box(inside)


def clip_to_threat(adversarial: Tensor, clean: Tensor, threat: ThreatModel) -> Tensor:
    """Bring candidates into the threat model's ball and the pixel box; tolerance as in `project_into`."""
    return project_into(adversarial, clean, threat.norm, float(threat.epsilon))


def random_start(clean: Tensor, keys: Tensor, *, norm: Norm, epsilon: float, seed: int, purpose: str) -> Tensor:
    """Random images in the ball, fixed by (seed, key, purpose) and so independent of the batch.

    Uniform in the linf ball; for l2 a uniform direction times a radius that is uniform in [0, epsilon].

    Args:
        clean: (B, C, H, W) clean images.
        keys: (B,) int64 keys of the examples.
        norm: linf or l2.
        epsilon: radius.
        seed: evaluation seed.
        purpose: what the draw is for.
    """
    shape = tuple(clean.shape[1:])
    if norm is Norm.LINF:
        delta = (2.0 * keyed_uniform(keys, shape, seed=seed, purpose=purpose) - 1.0) * epsilon
    else:
        direction = keyed_normal(keys, shape, seed=seed, purpose=f"{purpose}/direction")
        radius = keyed_uniform(keys, (1,) * len(shape), seed=seed, purpose=f"{purpose}/radius") * epsilon
        delta = unit_l2(direction) * radius
    return project_into(clean + delta.to(clean.dtype), clean, norm, epsilon)


def unit_l2(vectors: Tensor) -> Tensor:
    """Scale each example to l2 length one; zeros stay zeros.

    The largest entry is divided out first, because the squares of gradients near 1e-25 underflow in float32.
    """
    largest = vectors.flatten(1).abs().amax(dim=1)
    scaled = vectors / _per_example(torch.where(largest > 0, largest, 1.0), vectors)
    length = torch.linalg.vector_norm(scaled.flatten(1), dim=1)
    return scaled / _per_example(torch.where(length > 0, length, 1.0), vectors)
