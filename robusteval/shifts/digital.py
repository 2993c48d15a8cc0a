"""Brightness, contrast, saturation, pixelation (Hendrycks and Dietterich, ICLR 2019); JPEG has its own file."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from robusteval.shifts.corruption import Corruption
from robusteval.shifts.draws import Draws
from robusteval.shifts.filters import Banded, summing
from robusteval.shifts.pictures import from_picture, to_picture

_TINY = 2.0**-10
"""Grey levels that a float32 may lack where the exact result is whole."""
_PILLOW_PIXELS = 128 * 128
_HALF = 0.5 + _TINY
"""Rounds halves up. Other means of a few levels are clear of halves by far more than any order of summing matters."""


class Brightness(Corruption):
    """V + c in hue, saturation and value, clipped.

    With hue and saturation kept, every channel x becomes x V' / V, and black, which has no hue, becomes V'.
    """

    name = "brightness"

    @cached_property
    def _levels(self) -> Tensor:
        """Result for each value and channel: (256 * 256,) uint8."""
        value = np.arange(256)[:, None]
        brighter = np.minimum(value + 255.0 * self.constants, 255.0)
        ratio = brighter / np.maximum(value, 1)
        levels = np.where(value > 0, np.arange(256) * ratio, brighter)
        return torch.from_numpy(np.minimum(np.floor(levels + 1e-9), 255.0).astype(np.uint8).ravel())

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        places = images.amax(dim=1, keepdim=True).to(torch.int32).mul_(256) + images
        return torch.index_select(self._levels.to(images.device), 0, places.flatten()).reshape(images.shape)


class Saturate(Corruption):
    """Saturation times c plus d in hue, saturation and value, clipped; greys, which have no hue, count as red."""

    name = "saturate"

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        factor, shift = self.constants
        pixels = images.to(torch.float32)
        value = pixels.amax(dim=1, keepdim=True)
        chroma = value - pixels.amin(dim=1, keepdim=True)
        saturation = chroma / value.clamp(min=1.0)
        scaled = saturation.mul(factor).add_(shift).clamp_(0.0, 1.0).mul_(value)
        # Distance from the largest channel, 1 for the smallest; a grey pixel is as far in green and in blue.
        distance = (value - pixels).div_(chroma.clamp(min=1.0))
        grey = torch.tensor([0.0, 1.0, 1.0], device=images.device).reshape(1, 3, 1, 1)
        distance = torch.where(chroma == 0, grey, distance)
        return (value - distance.mul_(scaled)).add_(_TINY).clamp_(0.0, 255.0).to(torch.uint8)


class Contrast(Corruption):
    """clip((x - mu) c + mu), mu the mean of a channel of the image."""

    name = "contrast"

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        height, width = images.shape[2:]
        # The sum is exact in whole numbers; the mean is rounded once.
        total = images.sum(dim=(2, 3), keepdim=True, dtype=torch.int64).to(torch.float64)
        offset = (total * ((1.0 - self.constants) / (height * width))).to(torch.float32).add_(_TINY)
        return images.to(torch.float32).mul_(self.constants).add_(offset).clamp_(0, 255).to(torch.uint8)


class Pixelate(Corruption):
    """Shrunk by a factor c with a box filter and grown back, rounded in between, exactly as Pillow does it.

    Large images on a CPU go through Pillow itself, which is faster at it; the bits are the same.
    """

    name = "pixelate"

    @cached_property
    def _boxes(self) -> dict[tuple[int, torch.device], Box]:
        return {}

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        if _is_large(images):
            return self._through_pillow(images)
        down, right = (self._box(side, images.device) for side in images.shape[2:])
        rows = right.means.columns(images.to(right.means.dtype)).add_(_HALF).floor_()
        small = down.means.rows(rows).add_(_HALF).to(torch.uint8)
        return small.index_select(3, right.back).index_select(2, down.back)

    def piece(self, images: Tensor) -> int:
        """See `Shift.piece`; Pillow takes one image at a time anyway."""
        return len(images) if _is_large(images) else super().piece(images)

    def _through_pillow(self, images: Tensor) -> Tensor:
        found = np.empty(images.shape, dtype=np.uint8)
        _, _, height, width = images.shape
        small = max(1, int(width * self.constants)), max(1, int(height * self.constants))
        # Growing, the box filter copies the nearest pixel, unless a centre lies between two.
        between = any(
            ((2 * np.arange(side) + 1) * few % (2 * side) == 0).any()
            for side, few in zip((width, height), small, strict=True)
        )
        growing = Image.Resampling.BOX if between else Image.Resampling.NEAREST
        for image, pixelated in zip(images.numpy(), found, strict=True):
            shrunk = to_picture(image).resize(small, Image.Resampling.BOX)
            from_picture(shrunk.resize((width, height), growing), pixelated)
        return torch.from_numpy(found)

    def _box(self, side: int, device: torch.device) -> Box:
        if (side, device) not in self._boxes:
            self._boxes[side, device] = Box(side, max(1, int(side * self.constants)), device)
        return self._boxes[side, device]


def _is_large(images: Tensor) -> bool:
    return images.device.type == "cpu" and images.shape[2] * images.shape[3] > _PILLOW_PIXELS


class Box:
    """Pillow's box filter from `side` to `small` pixels and back.

    Attributes:
        means: means of the pixels whose centres an output pixel covers.
        back: (side,) int64, the small pixel that each pixel is copied from.
    """

    def __init__(self, side: int, small: int, device: torch.device) -> None:
        covered = box_cover(side, small)
        self.means = Banded(covered / covered.sum(axis=1, keepdims=True), summing(device), device)
        self.back = torch.from_numpy(box_cover(small, side).argmax(axis=1)).to(device)


def box_cover(before: int, after: int) -> NDArray[np.bool_]:
    """Which of `before` pixels each of `after` pixels is the mean of: (after, before)."""
    scale = before / after
    reach = max(scale, 1.0)
    middle = (np.arange(after)[:, None] + 0.5) * scale
    pixels = np.arange(before)[None, :]
    inside = (pixels >= np.floor(middle - 0.5 * reach + 0.5)) & (pixels < np.floor(middle + 0.5 * reach + 0.5))
    distance = (pixels - middle + 0.5) / reach
    covered: NDArray[np.bool_] = inside & (distance > -0.5) & (distance <= 0.5)
    return covered
