"""Gaussian, shot, impulse and speckle noise (Hendrycks and Dietterich, ICLR 2019).

Colours are whole numbers of 255ths and results are cut to whole numbers, so noise that is added is cut beforehand and
summed in integers: no result depends on the order of operations.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from robusteval.shifts.corruption import Corruption
from robusteval.shifts.draws import LEVELS, Draws, as_numbers, look_up, normal_quantiles


class GaussianNoise(Corruption):
    """clip(x + c z), z standard normal for every value."""

    name = "gaussian_noise"
    random = True

    @cached_property
    def _steps(self) -> Tensor:
        # floor(x + n) = x + floor(n) for whole x.
        return torch.from_numpy(np.floor(255.0 * self.constants * normal_quantiles()).astype(np.int16))

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        noise = look_up(self._steps.to(images.device), draws.halfwords(tuple(images.shape[1:]), "noise"))
        return noise.add_(images).clamp_(0, 255).to(torch.uint8)


class ImpulseNoise(Corruption):
    """A share c of the values is replaced, half of them by 1 and half by 0, each channel for itself."""

    name = "impulse_noise"
    random = True

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        ranks = as_numbers(draws.halfwords(tuple(images.shape[1:]), "noise"))
        replaced = round(self.constants * LEVELS)
        white = (ranks < replaced // 2).to(torch.uint8).mul_(255)
        return torch.where(ranks < replaced, white, images)
