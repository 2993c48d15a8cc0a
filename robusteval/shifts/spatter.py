"""Spatter: drops of water or mud on the lens (Hendrycks and Dietterich, ICLR 2019).

What lies on the lens does not depend on the image. It is made on the host, in whole numbers where the published code
has them; the Euclidean distance to the rims of the drops is exact here, where OpenCV approximates it.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, distance_transform_edt, label, uniform_filter
from torch import Tensor

from robusteval.shifts.corruption import Corruption
from robusteval.shifts.draws import Draws, look_up, normal_quantiles
from robusteval.shifts.filters import gaussian_taps

Array = NDArray[np.float32]

_WATER, _MUD = (175.0, 238.0, 238.0), (63.0, 42.0, 20.0)
"""Pale turquoise, brown."""
_WEAK, _STRONG = 50, 150
"""Thresholds of the rims' gradients (Canny, 1986)."""
_FAR = 20
"""Distance to a rim in pixels beyond which a drop is flat."""
_EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
_MUD_FROM = 0.8
_ROUNDING = 2.0**-10


class Spatter(Corruption):
    """Normal noise, blurred and cut off below a threshold, makes drops: water is added, mud covers."""

    name = "spatter"
    random = True

    @cached_property
    def _noise(self) -> Tensor:
        mean, deviation = self.constants[:2]
        return torch.from_numpy((mean + deviation * normal_quantiles()).astype(np.float32))

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        _, _, blur, threshold, strength, mud = self.constants
        halfwords = draws.halfwords(tuple(images.shape[2:]), "drops").cpu()
        layers = [_blurred(noise, blur) for noise in look_up(self._noise, halfwords).numpy()]
        cover = mud_cover if mud else water_cover
        covers = np.stack([cover(layer, threshold, strength) for layer in layers])[:, None]
        share = torch.from_numpy(covers).to(images.device)
        colour = torch.tensor(_MUD if mud else _WATER, device=images.device).reshape(1, 3, 1, 1)
        pixels = images.to(torch.float32)
        if mud:
            pixels = pixels.mul_(1.0 - share)
        return pixels.add_(share * colour).add_(_ROUNDING).clamp_(0.0, 255.0).to(torch.uint8)


def _blurred(layer: Array, sigma: float) -> Array:
    taps = gaussian_taps(sigma)
    rows: Array = correlate1d(layer, taps, axis=0, mode="nearest")
    return np.asarray(correlate1d(rows, taps, axis=1, mode="nearest"), dtype=np.float32)


def mud_cover(layer: Array, threshold: float, sigma: float) -> Array:
    """Share (H, W) of mud in each pixel: the layer above its threshold, blurred, only where it is thick."""
    thick = _blurred((layer > threshold).astype(np.float32), sigma)
    return np.where(thick < _MUD_FROM, np.float32(0.0), thick)


def water_cover(layer: Array, threshold: float, strength: float) -> Array:
    """Share (H, W) of water in each pixel: the layer times an embossed map of the distance to the drops' rims."""
    drops = (np.where(layer < threshold, 0.0, np.clip(layer, 0.0, 1.0)) * 255.0).astype(np.uint8)
    rims = rim_pixels(drops)
    distance = np.minimum(distance_transform_edt(~rims), _FAR) if rims.any() else np.full(drops.shape, float(_FAR))
    relief = _equalised(uniform_filter(distance.astype(np.float32), 3, mode="mirror").astype(np.uint8))
    embossed = np.clip(_emboss(relief), 0, 255).astype(np.uint8)
    smooth = np.rint(uniform_filter(embossed.astype(np.float32), 3, mode="mirror"))
    cover = drops * smooth
    most = cover.max()
    return np.asarray(cover * (strength / most) if most > 0 else cover, dtype=np.float32)


def _gradients(image: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Sobel's derivatives to the right and down, edges replicated."""
    padded = np.pad(image.astype(np.int32), 1, mode="edge")
    across = padded[:, 2:] - padded[:, :-2]
    down = padded[2:] - padded[:-2]
    right = across[:-2] + 2 * across[1:-1] + across[2:]
    below = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    return right, below


def rim_pixels(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Canny's edges of an image: crests of the gradient that hang together with a strong one."""
    right, below = _gradients(image)
    size = np.abs(right) + np.abs(below)
    padded = np.pad(size, 1)
    height, width = size.shape

    def at(row: int, column: int) -> NDArray[np.int32]:
        return padded[1 + row : 1 + row + height, 1 + column : 1 + column + width]

    steep, flat = np.abs(below) * 2.414213562373095, np.abs(right) * 2.414213562373095
    horizontal, vertical = np.abs(right) > steep, np.abs(below) > flat
    rising = (right < 0) != (below < 0)
    crest = np.where(
        horizontal,
        (size > at(0, -1)) & (size >= at(0, 1)),
        np.where(
            vertical,
            (size > at(-1, 0)) & (size >= at(1, 0)),
            np.where(rising, (size > at(-1, 1)) & (size > at(1, -1)), (size > at(-1, -1)) & (size > at(1, 1))),
        ),
    )
    weak = crest & (size > _WEAK)
    regions, count = label(weak, structure=np.ones((3, 3)))
    strong = np.zeros(count + 1, dtype=np.bool_)
    strong[regions[weak & (size > _STRONG)]] = True
    rims: NDArray[np.bool_] = strong[regions] & weak
    return rims


def _equalised(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey levels spread so that their distribution is even."""
    counts = np.bincount(image.ravel(), minlength=256)
    lowest = int(np.flatnonzero(counts)[0])
    rest = image.size - int(counts[lowest])
    if rest == 0:
        return image
    above = np.maximum(np.cumsum(counts) - counts[lowest], 0)
    levels: NDArray[np.uint8] = np.rint(above * (255.0 / rest)).astype(np.uint8)
    return np.take(levels, image)


def _emboss(image: NDArray[np.uint8]) -> NDArray[np.int32]:
    padded = np.pad(image.astype(np.int32), 1, mode="reflect")
    height, width = image.shape
    total = np.zeros((height, width), dtype=np.int32)
    for row in range(3):
        for column in range(3):
            total += _EMBOSS[row, column] * padded[row : row + height, column : column + width]
    return total
