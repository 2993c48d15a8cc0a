"""Gaussian, defocus, motion and zoom blur (Hendrycks and Dietterich, ICLR 2019); glass blur has its own file."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusteval.shifts.corruption import Corruption
from robusteval.shifts.draws import Draws
from robusteval.shifts.filters import DENSE_PIXELS, ONE, Banded, Correlation, Gaussian, beyond, summing, whole_rows
from robusteval.shifts.motion import Motion

_ROUNDING = 2.0**-10
"""Grey levels that a division may lack."""


class GaussianBlur(Corruption):
    """Gaussian blur of standard deviation c, cut off at four of them, edges replicated."""

    name = "gaussian_blur"

    @cached_property
    def _blur(self) -> Gaussian:
        return Gaussian(self.constants)

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        return self._blur(images)


class DefocusBlur(Corruption):
    """Correlation with a disk of some radius, smoothed by a small Gaussian against aliasing; edges reflected."""

    name = "defocus_blur"

    @cached_property
    def _blur(self) -> Correlation:
        return Correlation(disk(*self.constants))

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        return self._blur(images)


def disk(radius: float, alias: float) -> NDArray[np.float64]:
    """A flat disk on a grid of 17 pixels (2 r + 1 beyond radius 8), smoothed with 3 (5) taps of deviation `alias`."""
    reach, taps = (8, 3) if radius <= 8 else (int(radius), 5)
    offsets = np.arange(-reach, reach + 1)
    flat = (offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2).astype(np.float64)
    flat /= flat.sum()
    near = np.arange(taps) - taps // 2
    weights = np.exp(-0.5 * (near / alias) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        # The smoothing reflects at the edge of the grid, so a disk that fills its grid gets a sum of a little over 1.
        sources = [beyond(np.arange(len(offsets)) + offset, len(offsets), "reflect") for offset in near]
        flat = sum(weight * flat.take(source, axis) for weight, source in zip(weights, sources, strict=True))
    return flat


class MotionBlur(Corruption):
    """Half a Gaussian of some deviation along a ray of 2 r + 1 pixels, at an angle uniform in [-45, 45] degrees."""

    name = "motion_blur"
    random = True

    @cached_property
    def _motion(self) -> Motion:
        return Motion(*self.constants)

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        degrees = -45.0 + 90.0 * draws.uniform(1, "angle")[:, 0]
        return self._motion(images, degrees).to(torch.uint8)


class ZoomBlur(Corruption):
    """Mean of the image and of its bilinear zooms into the middle, by factors from 1 in equal steps."""

    name = "zoom_blur"

    @cached_property
    def factors(self) -> tuple[float, ...]:
        """The zooms; a range of floats sometimes includes its end, and the published sets have that in them."""
        stop, step = self.constants
        return tuple(float(factor) for factor in np.arange(1.0, stop, step))

    @cached_property
    def _matrices(self) -> dict[tuple[int, int, torch.device], Tensor]:
        return {}

    @cached_property
    def _pairs(self) -> dict[tuple[int, int, torch.device, torch.dtype], list[tuple[Banded, Banded]]]:
        return {}

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        height, width = images.shape[2:]
        if height * width <= DENSE_PIXELS:
            single = summing(images.device)
            matrix = self._matrix(height, width, images.device).to(single)
            total = torch.matmul(images.flatten(2).to(single), matrix)
            return total.mul_(1.0 / ONE).to(torch.uint8).reshape(images.shape)
        pixels = images.to(summing(images.device))
        total = images.to(torch.float64).mul_(ONE * ONE)
        for columns, rows in self._bands(height, width, images.device):
            total += rows.rows(columns.columns(pixels).to(torch.float64))
        # The mean of equal levels is that level, not the one below.
        share = 1.0 / (ONE * ONE * (len(self.factors) + 1))
        return total.mul_(share).add_(_ROUNDING).to(torch.uint8)

    def _bands(self, height: int, width: int, device: torch.device) -> list[tuple[Banded, Banded]]:
        """One pair a zoom: along the rows, then down the columns."""
        key = (height, width, device, summing(device))
        if key not in self._pairs:
            self._pairs[key] = [
                (
                    Banded(whole_rows(zoom_matrix(width, factor)), summing(device), device),
                    Banded(whole_rows(zoom_matrix(height, factor)), torch.float64, device),
                )
                for factor in self.factors
            ]
        return self._pairs[key]

    def _matrix(self, height: int, width: int, device: torch.device) -> Tensor:
        """All zooms of a small image as one matrix of whole numbers, transposed: (H W, H W) float32."""
        key = (height, width, device)
        if key not in self._matrices:
            mean = np.eye(height * width)
            for factor in self.factors:
                mean += np.kron(zoom_matrix(height, factor), zoom_matrix(width, factor))
            rows = whole_rows(mean / (len(self.factors) + 1))
            self._matrices[key] = torch.from_numpy(rows.T.astype(np.float32)).to(device)
        return self._matrices[key]


def zoomed_sides(side: int, factor: float) -> tuple[int, int, int, int]:
    """First pixel and length of the cut-out, length after the zoom, and pixels trimmed before the middle part."""
    cut = math.ceil(side / factor)
    grown = round(cut * factor)
    return (side - cut) // 2, cut, grown, (grown - side) // 2


def zoom_matrix(side: int, factor: float) -> NDArray[np.float64]:
    """Bilinear zoom into the middle along one axis, corners on corners, as a matrix (side, side)."""
    first, cut, grown, trimmed = zoomed_sides(side, factor)
    places = (np.arange(side) + trimmed) * ((cut - 1) / max(1, grown - 1))
    low = np.minimum(places.astype(np.int64), max(0, cut - 2))
    matrix = np.zeros((side, side))
    rows = np.arange(side)
    np.add.at(matrix, (rows, first + low), 1.0 - (places - low))
    np.add.at(matrix, (rows, first + np.minimum(low + 1, cut - 1)), places - low)
    return matrix
