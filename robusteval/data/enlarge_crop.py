"""The augmentation of the Dassl protocols: enlarge an image a little, then cut out a window of the old size."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from robusteval.data.augment import Augmentation
from robusteval.schema.types import Fraction01, Frozen


class EnlargeCropParams(Frozen):
    """Parameters of `enlarge-crop`."""

    factor: Annotated[float, Field(gt=1.0, le=4.0)] = 1.125
    """How many times larger each side becomes."""
    p: Fraction01 = 0.5
    """Share of the images that are changed."""


class EnlargeCrop(Augmentation[EnlargeCropParams]):
    """Resize bilinearly to `factor` times the side and cut out a window of the old size at a uniform position."""

    Params = EnlargeCropParams
    draws = 3

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """See `Augmentation.apply`."""
        height, width = images.shape[2:]
        size = round(height * self.params.factor), round(width * self.params.factor)
        enlarged = functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
        top, left = (
            (draws[:, axis] * (size[axis] - side + 1)).to(torch.int64).clamp_(max=size[axis] - side)
            for axis, side in enumerate((height, width))
        )
        rows = top[:, None] + torch.arange(height, device=images.device)
        columns = left[:, None] + torch.arange(width, device=images.device)
        which = torch.arange(len(images), device=images.device)[:, None, None, None]
        channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
        cropped = enlarged[which, channels, rows[:, None, :, None], columns[:, None, None, :]]
        return torch.where((draws[:, 2] < self.params.p)[:, None, None, None], cropped, images)
