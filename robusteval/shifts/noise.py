"""Gaussian, shot, impulse and speckle noise (Hendrycks and Dietterich, ICLR 2019).

Colours are whole numbers of 255ths and results are cut to whole numbers, so noise that is added is cut beforehand and
summed in integers: no result depends on the order of operations.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from scipy.special import pdtr
from torch import Tensor

from robusteval.shifts.corruption import Corruption
from robusteval.shifts.draws import LEVELS, Draws, as_numbers, look_up, normal_quantiles

_WHITE = 255


class GaussianNoise(Corruption):
    """clip(x + c z), z standard normal for every value."""

    name = "gaussian_noise"
    random = True

    @cached_property
    def _steps(self) -> Tensor:
        # floor(x + n) = x + floor(n) for whole x.
        return torch.from_numpy(np.floor(_WHITE * self.constants * normal_quantiles()).astype(np.int16))

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        noise = look_up(self._steps.to(images.device), draws.halfwords(tuple(images.shape[1:]), "noise"))
        return noise.add_(images).clamp_(0, _WHITE).to(torch.uint8)


class SpeckleNoise(Corruption):
    """clip(x + c x z), z standard normal for every value."""

    name = "speckle_noise"
    random = True

    @cached_property
    def _factors(self) -> Tensor:
        return torch.from_numpy((1.0 + self.constants * normal_quantiles()).astype(np.float32))

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        factors = look_up(self._factors.to(images.device), draws.halfwords(tuple(images.shape[1:]), "noise"))
        return factors.mul_(images).clamp_(0, _WHITE).to(torch.uint8)


class ShotNoise(Corruption):
    """clip(Poisson(c x) / c) for every value: photons counted at a rate of c for white."""

    name = "shot_noise"
    random = True

    @cached_property
    def _levels(self) -> Tensor:
        """Quantiles of the result for each of the 256 levels, in equal steps of probability: (256, 65536) uint8."""
        rate = self.constants
        most = int(rate + 8.0 * rate**0.5 + 16.0)
        counts = np.arange(most + 1)
        values = np.minimum(np.floor(counts * (_WHITE / rate) + 1e-9), _WHITE).astype(np.uint8)
        table = np.empty((_WHITE + 1, LEVELS), dtype=np.uint8)
        for level in range(_WHITE + 1):
            below = np.rint(pdtr(counts, rate * level / _WHITE) * LEVELS).astype(np.int64)
            below[-1] = LEVELS
            table[level] = np.repeat(values, np.diff(below, prepend=0))
        return torch.from_numpy(table.ravel())

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        ranks = as_numbers(draws.halfwords(tuple(images.shape[1:]), "noise"))
        places = ranks.add_(images.to(torch.int32), alpha=LEVELS)
        return torch.index_select(self._levels.to(images.device), 0, places.flatten()).reshape(images.shape)


class ImpulseNoise(Corruption):
    """A share c of the values is replaced, half of them by 1 and half by 0, each channel for itself."""

    name = "impulse_noise"
    random = True

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        ranks = as_numbers(draws.halfwords(tuple(images.shape[1:]), "noise"))
        replaced = round(self.constants * LEVELS)
        white = (ranks < replaced // 2).to(torch.uint8).mul_(_WHITE)
        return torch.where(ranks < replaced, white, images)
