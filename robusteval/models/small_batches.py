"""How small a batch may be before the bits of an image's logits and gradients depend on its company.

A batch is padded to `MIN_BATCH`, because smaller ones may be computed by other kernels. Where the kernels change only
at fewer images, as in a ResNet-20, the padding of the last few examples of an attack is wasted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robusteval.models.classifier import MIN_BATCH, Classifier

CANDIDATES = (1, 2, 4, 8)
"""Sizes that are tried, smallest first."""


def least_batch(form: Classifier, images: Tensor, *, gradient: bool) -> int:
    """The smallest batch of `form` that computes an image bitwise as a batch of `MIN_BATCH` does.

    Args:
        form: a frozen classifier; padded to what it was padded to again afterwards.
        images: (J, C, H, W) in [0, 1], J >= 1; repeated if there are fewer than `MIN_BATCH`.
        gradient: whether the gradients of logits are compared as well, or logits alone.

    Returns:
        `MIN_BATCH` unless every smaller size that was tried agrees. Costs up to 98 passes forward and, with gradients,
        back.
    """
    whole = images.repeat(-(-MIN_BATCH // len(images)), 1, 1, 1)[:MIN_BATCH]
    before = form.least_batch, form.least_logit_batch
    bits = _logits_and_gradient if gradient else _logits
    try:
        form.least_batch = form.least_logit_batch = 1
        expected = bits(form, whole)
        agrees: dict[int, bool] = {}
        for candidate in CANDIDATES:
            sizes = sorted({candidate, candidate + 1, 2 * candidate - 1, 2 * candidate, 12} - set(agrees))
            for size in sizes:
                if size < MIN_BATCH:
                    agrees[size] = _same(bits(form, whole[-size:]), [part[-size:] for part in expected])
            if all(same for size, same in agrees.items() if size >= candidate):
                return candidate
        return MIN_BATCH
    finally:
        form.least_batch, form.least_logit_batch = before


@torch.no_grad()
def _logits(form: Classifier, images: Tensor) -> list[Tensor]:
    return [form(images)]


def _logits_and_gradient(form: Classifier, images: Tensor) -> list[Tensor]:
    """Logits and the gradient of the largest one, image by image."""
    leaf = images.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = form(leaf)
        (gradient,) = torch.autograd.grad(logits.amax(dim=1).sum(), leaf)
    return [logits.detach(), gradient]


def _same(found: list[Tensor], expected: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
