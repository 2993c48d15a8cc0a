"""Random fields of a shift, keyed by (seed, shift, severity, example).

Fields are read off tables of 65536 equally likely values, one half-word a value: exact in distribution up to steps of
2**-16 in probability, the same bits on every device, and a gather instead of a logarithm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from robusteval.data.keyed_bits import keyed_halfwords

LEVELS = 2**16
"""Values that a half-word can take."""


@dataclass(frozen=True)
class Draws:
    """Where the random fields of B examples come from.

    Attributes:
        keys: (B,) int64.
        seed: evaluation seed.
        scope: what the fields are drawn for.
    """

    keys: Tensor
    seed: int
    scope: str

    def __len__(self) -> int:
        return int(self.keys.shape[0])

    def halfwords(self, shape: tuple[int, ...], purpose: str) -> Tensor:
        """Random bit patterns: (B, *shape) int16."""
        found = keyed_halfwords(self.keys, math.prod(shape), seed=self.seed, purpose=f"{self.scope}/{purpose}")
        return found.reshape(len(self), *shape)

    def uniform(self, count: int, purpose: str) -> NDArray[np.float64]:
        """Uniform numbers in [0, 1), multiples of 2**-48: (B, count) float64 on the host, for a few decisions."""
        parts = self.halfwords((count, 3), purpose).cpu().numpy().view(np.uint16).astype(np.float64)
        numbers: NDArray[np.float64] = parts @ np.array([2.0**-16, 2.0**-32, 2.0**-48])
        return numbers


def as_numbers(halfwords: Tensor) -> Tensor:
    """Bit patterns of any shape as int32 in [0, 65536)."""
    return halfwords.to(torch.int32).bitwise_and_(LEVELS - 1)


def look_up(table: Tensor, halfwords: Tensor) -> Tensor:
    """The entries (65536, of any dtype) that int16 bit patterns of any shape point at, in that shape."""
    if halfwords.device.type == "cpu":
        return torch.from_numpy(np.take(table.numpy(), halfwords.numpy().view(np.uint16)))
    return torch.index_select(table, 0, as_numbers(halfwords).flatten()).reshape(halfwords.shape)


def normal_quantiles() -> NDArray[np.float64]:
    """The medians of 65536 equally likely slices of the standard normal distribution, in rising order."""
    quantiles: NDArray[np.float64] = ndtri((np.arange(LEVELS) + 0.5) / LEVELS)
    return quantiles
