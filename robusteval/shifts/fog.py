"""Fog: a fractal cloud laid over the image (Hendrycks and Dietterich, ICLR 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from robusteval.shifts.corruption import Corruption
from robusteval.shifts.draws import LEVELS, Draws

_ROUGHNESS = 100.0
"""Size of the first random steps of the cloud, which is scaled to [0, 1] in the end."""
_ROUNDING = 2.0**-10


class Fog(Corruption):
    """clip((x + c P) m / (m + c)), m the largest value of the image, P a cloud in [0, 1] of a roughness that decays."""

    name = "fog"
    random = True

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        amount, decay = self.constants
        height, width = images.shape[2:]
        side = 1 << (max(height, width) - 1).bit_length()
        cloud = plasma(draws.halfwords((side, side), "cloud"), decay)[:, None, :height, :width]
        most = images.flatten(1).amax(dim=1).to(torch.float32)[:, None, None, None]
        share = most / (most + 255.0 * amount)
        fog = cloud.mul(255.0 * amount).mul_(share).add_(_ROUNDING)
        return images.to(torch.float32).mul_(share).add_(fog).clamp_(0.0, 255.0).to(torch.uint8)


def plasma(halfwords: Tensor, decay: float) -> Tensor:
    """Diamond-square clouds on a torus (Fournier, Fussell and Carpenter, 1982), as ImageNet-C draws them.

    Each new point is the mean of its four neighbours plus w^2 times a number uniform in (-1, 1); w is divided by
    `decay` after each level.

    Args:
        halfwords: (B, S, S) int16, one pattern a point, S a power of two.
        decay: from 1.

    Returns:
        (B, S, S) float32 from 0 to 1.
    """
    side = halfwords.shape[1]
    # A random step needs the same factors whatever the level but for w, so numbers in (-1, 1) are made once.
    noise = halfwords.to(torch.float32).add_(0.5).mul_(2.0 / LEVELS)
    cloud = torch.zeros_like(noise)
    step, roughness = side, _ROUGHNESS
    while step >= 2:
        half, size = step // 2, roughness * roughness
        corners = cloud[:, ::step, ::step]
        down = corners + corners.roll(-1, 1)
        centres = cloud[:, half::step, half::step]
        centres.copy_((down + down.roll(-1, 2)).mul_(0.25).add_(noise[:, half::step, half::step] * size))
        across = corners + corners.roll(-1, 2)
        tops = (centres + centres.roll(1, 1)).add_(across)
        cloud[:, ::step, half::step] = tops.mul_(0.25).add_(noise[:, ::step, half::step] * size)
        sides = (centres + centres.roll(1, 2)).add_(down)
        cloud[:, half::step, ::step] = sides.mul_(0.25).add_(noise[:, half::step, ::step] * size)
        step, roughness = half, roughness / decay
    cloud -= cloud.amin(dim=(1, 2), keepdim=True)
    return cloud.div_(cloud.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12))
