"""Brightness, contrast and saturation (Hendrycks and Dietterich, ICLR 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from robusteval.shifts.corruption import Corruption
from robusteval.shifts.draws import Draws


class Contrast(Corruption):
    """clip((x - mu) c + mu), mu the mean of a channel of the image."""

    name = "contrast"

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        height, width = images.shape[2:]
        # The mean is exact in whole numbers; it is rounded once.
        total = images.sum(dim=(2, 3), keepdim=True, dtype=torch.int64).to(torch.float64)
        offset = (total * ((1.0 - self.constants) / (height * width))).to(torch.float32)
        return images.to(torch.float32).mul_(self.constants).add_(offset).clamp_(0, 255).to(torch.uint8)
