"""Blur along a ray, in whole numbers."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from robusteval.shifts.filters import ONE, whole


class Motion:
    """One half of a Gaussian of deviation `sigma` along a ray of 2 `radius` + 1 pixels, edges replicated.

    Step i of the ray reads the pixel at (ceil(i cos a - 1/2), ceil(i sin a - 1/2)), as ImageMagick does; weights fall
    with exp(-i^2 / (2 sigma^2)). Sums are exact in float32.

    Args:
        radius: in pixels.
        sigma: in pixels.
    """

    def __init__(self, radius: int, sigma: float) -> None:
        self.steps = np.arange(2 * radius + 1)
        weights = np.exp(-0.5 * (self.steps / sigma) ** 2)
        self.weights = whole(weights / weights.sum())

    def __call__(self, images: Tensor, degrees: NDArray[np.float64]) -> Tensor:
        """Blur (B, C, H, W) uint8, each image at its own angle of `degrees` (B,): float32 grey levels in [0, 255]."""
        radians = [math.radians(angle) for angle in degrees.tolist()]
        right = self._offsets([math.cos(angle) for angle in radians])
        down = self._offsets([math.sin(angle) for angle in radians])
        pixels = images.to(torch.float32)
        if images.device.type == "cpu":
            total = torch.stack(
                [self._along_views(image, *paths) for image, *paths in zip(pixels, right, down, strict=True)]
            )
        else:
            total = self._along_gathers(pixels, right, down)
        return total.mul_(1.0 / ONE)

    def _offsets(self, directions: list[float]) -> NDArray[np.int64]:
        offsets: NDArray[np.int64] = np.ceil(np.array(directions)[:, None] * self.steps - 0.5).astype(np.int64)
        return offsets

    def _along_views(self, image: Tensor, right: NDArray[np.int64], down: NDArray[np.int64]) -> Tensor:
        """Sum shifted views of one padded image (C, H, W)."""
        weights: dict[tuple[int, int], int] = {}
        for place, weight in zip(zip(down.tolist(), right.tolist(), strict=True), self.weights.tolist(), strict=True):
            weights[place] = weights.get(place, 0) + weight
        top, bottom = max(0, -int(down.min())), max(0, int(down.max()))
        left, rear = max(0, -int(right.min())), max(0, int(right.max()))
        padded = pad(image[None], (left, rear, top, bottom), mode="replicate")[0]
        strides = padded.stride()
        total = torch.zeros_like(image)
        for (row, column), weight in weights.items():
            start = (top + row) * strides[1] + left + column
            total.add_(padded.as_strided(image.shape, strides, start), alpha=weight)
        return total

    def _along_gathers(self, images: Tensor, right: NDArray[np.int64], down: NDArray[np.int64]) -> Tensor:
        """Gather the pixels of one step for all images (B, C, H, W) at once."""
        batch, channels, height, width = images.shape
        pixels, total = images.flatten(2), torch.zeros_like(images).flatten(2)
        rights, downs = (torch.from_numpy(offsets).to(images.device) for offsets in (right, down))
        rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
        for step, weight in enumerate(self.weights.tolist()):
            from_rows = (rows + downs[:, step, None]).clamp_(0, height - 1)
            from_columns = (columns + rights[:, step, None]).clamp_(0, width - 1)
            places = (from_rows[:, :, None] * width + from_columns[:, None, :]).reshape(batch, 1, -1)
            total.add_(pixels.gather(2, places.expand(-1, channels, -1)), alpha=weight)
        return total.reshape(images.shape)
