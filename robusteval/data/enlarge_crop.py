"""The augmentation of the Dassl protocols: enlarge an image a little, then cut out a window of the old size."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from robusteval.data.augment import Augmentation, integers_below, windows
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
        top = integers_below(draws[:, 0], size[0] - height + 1)
        left = integers_below(draws[:, 1], size[1] - width + 1)
        cropped = windows(enlarged, top, left, height, width)
        return torch.where((draws[:, 2] < self.params.p)[:, None, None, None], cropped, images)
