"""Spatter: drops of water or mud on the lens (Hendrycks and Dietterich, ICLR 2019).

What lies on the lens does not depend on the image. It is made on the host, in whole numbers where the published code
has them; the Euclidean distance to the rims of the drops is exact here, where OpenCV approximates it.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusteval.shifts.corruption import Corruption
from robusteval.shifts.draws import Draws, look_up, normal_quantiles
from robusteval.shifts.filters import ONE, Banded, axis_matrix, gaussian_taps, whole
from robusteval.shifts.rims import distance_to, rim_pixels

Bytes = NDArray[np.uint8]

_WATER, _MUD = (175.0, 238.0, 238.0), (63.0, 42.0, 20.0)
"""Pale turquoise, brown."""
_FAR = 20
"""Distance to a rim in pixels beyond which a drop is flat."""
_EMBOSS = ((0, 0, -2), (0, 1, -1), (1, 0, -1), (1, 1, 1), (1, 2, 1), (2, 1, 1), (2, 2, 2))
"""Row, column and weight of a kernel that lights slopes from one corner."""
_MUD_FROM = 0.8
_ROUNDING = 2.0**-10


class Spatter(Corruption):
    """Normal noise, blurred and cut off below a threshold, makes drops: water is added, mud covers."""

    name = "spatter"
    random = True

    @cached_property
    def _noise(self) -> Tensor:
        """The noise in units of 1 / `ONE`, whole, so that its blur is exact in double precision."""
        mean, deviation = self.constants[:2]
        return torch.from_numpy(np.rint((mean + deviation * normal_quantiles()) * ONE))

    @cached_property
    def _bands(self) -> dict[tuple[int, float], Banded]:
        return {}

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        _, _, blur, threshold, strength, mud = self.constants
        noise = look_up(self._noise, draws.halfwords((1, *images.shape[2:]), "drops").cpu())
        layer = self._blurred(noise, blur).mul_(1.0 / ONE)
        if mud:
            thick = self._blurred((layer > threshold).to(torch.float64), strength)
            share = torch.where(thick < _MUD_FROM, 0.0, thick)
        else:
            drops = torch.where(layer < threshold, 0.0, layer).clamp_(0.0, 1.0).mul_(255.0).to(torch.uint8)
            share = torch.from_numpy(water_cover(drops[:, 0].numpy(), strength))[:, None]
        share = share.to(images.device, torch.float32)
        colour = torch.tensor(_MUD if mud else _WATER, device=images.device).reshape(1, 3, 1, 1)
        pixels = images.to(torch.float32)
        if mud:
            pixels = pixels.mul_(1.0 - share)
        return pixels.add_(share * colour).add_(_ROUNDING).clamp_(0.0, 255.0).to(torch.uint8)

    def _blurred(self, layer: Tensor, sigma: float) -> Tensor:
        height, width = layer.shape[2:]
        columns, rows = self._band(width, sigma), self._band(height, sigma)
        return rows.rows(columns.columns(layer)).mul_(1.0 / (ONE * ONE))

    def _band(self, side: int, sigma: float) -> Banded:
        if (side, sigma) not in self._bands:
            matrix = axis_matrix(whole(gaussian_taps(sigma)), side, "replicate")
            self._bands[side, sigma] = Banded(matrix, torch.float64, torch.device("cpu"))
        return self._bands[side, sigma]


def water_cover(drops: Bytes, strength: float) -> NDArray[np.float32]:
    """Share of water in each pixel: the drops times an embossed map of the distance to their rims.

    Args:
        drops: (B, H, W).
        strength: the largest share of an image.

    Returns:
        (B, H, W) float32.
    """
    distance = distance_to(rim_pixels(drops), _FAR)
    relief = np.stack([_equalised(one) for one in _mean_of_nine(distance).astype(np.uint8)])
    smooth = np.rint(_mean_of_nine(_embossed(relief).astype(np.float32)))
    cover = drops * smooth
    most = np.maximum(cover.max(axis=(1, 2), keepdims=True), np.float32(1.0))
    share: NDArray[np.float32] = cover * (np.float32(strength) / most)
    return share


def _mean_of_nine(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over a pixel and its eight neighbours, edges reflected."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    mean: NDArray[np.float32] = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) * np.float32(1.0 / 9.0)
    return mean


def _equalised(image: Bytes) -> Bytes:
    """Grey levels spread so that their distribution is even."""
    counts = np.bincount(image.ravel(), minlength=256)
    lowest = int(np.flatnonzero(counts)[0])
    rest = image.size - int(counts[lowest])
    if rest == 0:
        return image
    above = np.maximum(np.cumsum(counts) - counts[lowest], 0)
    levels: Bytes = np.rint(above * (255.0 / rest)).astype(np.uint8)
    return np.take(levels, image)


def _embossed(images: Bytes) -> Bytes:
    padded = np.pad(images.astype(np.int16), ((0, 0), (1, 1), (1, 1)), mode="reflect")
    _, height, width = images.shape
    total = np.zeros(images.shape, dtype=np.int16)
    for row, column, weight in _EMBOSS:
        total += np.int16(weight) * padded[:, row : row + height, column : column + width]
    return np.clip(total, 0, 255).astype(np.uint8)
