"""Frost: ice crystals over the image (Hendrycks and Dietterich, ICLR 2019), with textures of our own.

The published textures are photographs that this package does not ship. Five procedural ones stand for the first five of
them, with their mean colours and their contrast: ridges of fractal noise that grow like needles of ice. So this is the
one corruption whose images differ from the published ones in kind, and the parameter `textures` of a record says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusteval.data.domains import uniform_draws
from robusteval.shifts.corruption import Corruption, CorruptionParams
from robusteval.shifts.draws import Draws

_SIDE = 400
"""Side of a texture in pixels, for images of 224 pixels."""
_FINEST = 2.0
"""Size of the smallest crystals in pixels."""
_ROUNDING = 2.0**-10


@dataclass(frozen=True)
class Ice:
    """One kind of frost: mean colour, contrast in grey levels, and size of its largest crystals in pixels."""

    colour: tuple[float, float, float]
    contrast: float
    grain: float


ICES = (
    Ice((78.0, 149.0, 166.0), 20.0, 160.0),
    Ice((201.0, 205.0, 214.0), 22.0, 120.0),
    Ice((201.0, 205.0, 214.0), 22.0, 90.0),
    Ice((138.0, 153.0, 165.0), 29.0, 100.0),
    Ice((112.0, 123.0, 135.0), 43.0, 140.0),
)


class FrostParams(CorruptionParams):
    """Constants and mode as for every corruption, and where the textures come from."""

    textures: Literal["procedural"] = "procedural"
    """The published photographs are not shipped; a record says what stood for them."""


class Frost(Corruption):
    """clip(w x + v F), F a random crop of one of five procedural textures of frost."""

    Params = FrostParams
    name = "frost"
    random = True

    @cached_property
    def _textures(self) -> dict[tuple[int, torch.device], Tensor]:
        return {}

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        weight, cover, scale = self.constants
        height, width = images.shape[2:]
        side = max(round(_SIDE * scale), 3 * max(height, width) // 2)
        textures = self._texture(side, scale, images.device)
        kind, down, right = draws.uniform(3, "crop").T
        kinds = np.floor(kind * len(ICES)).astype(np.int64).tolist()
        tops = np.floor(down * (side - height)).astype(np.int64).tolist()
        lefts = np.floor(right * (side - width)).astype(np.int64).tolist()
        crops = [
            textures[which, :, top : top + height, left : left + width]
            for which, top, left in zip(kinds, tops, lefts, strict=True)
        ]
        frost = torch.stack(crops).mul_(cover).add_(_ROUNDING)
        return frost.add_(images.to(torch.float32).mul_(weight)).clamp_(0.0, 255.0).to(torch.uint8)

    def _texture(self, side: int, scale: float, device: torch.device) -> Tensor:
        """Whole grey levels (5, 3, side, side) float32."""
        if (side, device) not in self._textures:
            layers = [frost_texture(ice, f"{number}", side, scale) for number, ice in enumerate(ICES)]
            self._textures[side, device] = torch.from_numpy(np.stack(layers).astype(np.float32)).to(device)
        return self._textures[side, device]


def frost_texture(ice: Ice, name: str, side: int, scale: float) -> NDArray[np.uint8]:
    """One texture: (3, side, side) uint8.

    Args:
        ice: its kind.
        name: what its random numbers are drawn for.
        side: in pixels.
        scale: pixels of this texture per pixel of one for images of 224 pixels.
    """
    heights = np.zeros((side, side), dtype=np.float32)
    weight, cell, octave = 1.0, ice.grain * scale, 0
    while cell >= _FINEST:
        # Needles: every octave is stretched along an axis of its own, and a ridge stands where it crosses its mean.
        noise = _value_noise(f"{name}/{octave}", side, cell, slant=(0.7, -0.7, 0.3, -0.3)[octave % 4])
        heights -= np.float32(2.0 * weight) * np.abs(noise - np.float32(0.5))
        weight, cell, octave = weight * 0.85, cell / 2.0, octave + 1
    exact = heights.astype(np.float64)
    exact = (exact - exact.mean()) / exact.std()
    colours = np.array(ice.colour)[:, None, None] + ice.contrast * exact
    levels: NDArray[np.uint8] = np.clip(np.rint(colours), 0.0, 255.0).astype(np.uint8)
    return levels


def _value_noise(name: str, side: int, cell: float, slant: float) -> NDArray[np.float32]:
    """Random values on a sheared grid of about `cell` pixels, smoothly interpolated: (side, side) in [0, 1]."""
    rows, columns = np.arange(side)[:, None] / cell, np.arange(side)[None, :] / cell
    rows, columns = rows + slant * columns, (columns - slant * rows) * 0.5
    rows, columns = rows - rows.min(), columns - columns.min()
    tall, wide = int(rows.max()) + 2, int(columns.max()) + 2
    values = uniform_draws("frost", [name], tall * wide)[0].astype(np.float32)
    low_rows, low_columns = rows.astype(np.int32), columns.astype(np.int32)
    down, right = _eased(rows - low_rows), _eased(columns - low_columns)
    corner = low_rows * wide + low_columns
    upper = np.take(values, corner)
    upper += (np.take(values, corner + 1) - upper) * right
    lower = np.take(values, corner + wide)
    lower += (np.take(values, corner + wide + 1) - lower) * right
    noise: NDArray[np.float32] = upper + (lower - upper) * down
    return noise


def _eased(share: NDArray[np.float64]) -> NDArray[np.float32]:
    eased: NDArray[np.float32] = (share * share * (3.0 - 2.0 * share)).astype(np.float32)
    return eased
