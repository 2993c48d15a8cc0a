"""Linear filters in whole numbers, so that sums are exact and no result depends on the order of summation.

Pixels have 8 bits and weights are rounded to multiples of 2**-16 that keep their sum, so a filter's sums fit into the
24 bits of a float32 and those of two filters in a row into the 53 bits of a float64. A matrix product in blocks of any
shape and a Fourier transform that is rounded afterwards then give the same bits, whatever the batch, the library or the
device, and each size gets the fastest of them. Rounding the weights moves a result by a few hundredths of a grey
level.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

Border = Literal["replicate", "reflect", "symmetric"]
"""What lies beyond the edge of abcd: dddd, cba (edge not repeated), or dcba (edge repeated)."""

BITS = 16
ONE = 2**BITS
"""The weight 1 in whole numbers."""
DENSE_PIXELS = 32 * 32
"""Images of up to so many pixels are filtered by one matrix over all of them."""


def summing(device: torch.device) -> torch.dtype:
    """The type that sums of 24 bits are exact in: single precision may be lowered behind its name, double never is."""
    trusted = device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"
    return torch.float32 if trusted else torch.float64


def gaussian_taps(sigma: float, truncate: float = 4.0) -> NDArray[np.float64]:
    """Samples of a Gaussian out to `truncate` standard deviations, rounded, with sum 1: (2 r + 1,)."""
    radius = int(truncate * sigma + 0.5)
    if radius == 0:
        return np.ones(1)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    normal: NDArray[np.float64] = weights / weights.sum()
    return normal


def whole(weights: NDArray[np.float64], one: int = ONE) -> NDArray[np.int64]:
    """Weights in units of 1 / `one`, rounded so that their sum is the rounded sum (largest remainders first)."""
    scaled = weights * one
    low = np.floor(scaled)
    missing = round(float(scaled.sum())) - int(low.sum())
    ranked = np.argsort(-(scaled - low), axis=None, kind="stable")[:missing]
    low.flat[ranked] += 1
    return low.astype(np.int64)


def whole_rows(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """A matrix whose rows are rounded by `whole`."""
    return np.stack([whole(row) for row in matrix]).astype(np.float64)


def beyond(positions: NDArray[np.int64], side: int, border: Border) -> NDArray[np.int64]:
    """Where in [0, side) positions outside of an axis are read."""
    if border == "replicate":
        return np.clip(positions, 0, side - 1)
    period = 2 * side if border == "symmetric" else max(1, 2 * side - 2)
    wrapped = positions % period
    last = 2 * side - 1 if border == "symmetric" else 2 * side - 2
    return np.where(wrapped >= side, last - wrapped, wrapped)


def axis_matrix(taps: NDArray[np.int64], side: int, border: Border) -> NDArray[np.float64]:
    """The filter along an axis as a matrix (side, side) of whole numbers; row i holds what pixel i becomes."""
    matrix = np.zeros((side, side))
    centre = len(taps) // 2
    rows = np.arange(side)
    for tap, weight in enumerate(taps):
        np.add.at(matrix, (rows, beyond(rows + tap - centre, side, border)), float(weight))
    return matrix


class Banded:
    """A banded matrix as dense blocks along its diagonal, applied to the last or the second last axis of a tensor.

    Args:
        matrix: (M, N); wherever a row has entries, its neighbours have theirs nearby.
        dtype: of the tensors that it is applied to.
        device: where they are.
    """

    _ROWS = 32

    def __init__(self, matrix: NDArray[np.float64], dtype: torch.dtype, device: torch.device) -> None:
        self.dtype = dtype
        self.blocks: list[tuple[int, int, Tensor]] = []
        rows = self._ROWS if device.type == "cpu" else len(matrix)
        for start in range(0, len(matrix), rows):
            block = matrix[start : start + rows]
            used = np.flatnonzero(block.any(axis=0))
            first, last = int(used[0]), int(used[-1]) + 1
            self.blocks.append((first, last - first, torch.from_numpy(block[:, first:last].copy()).to(device, dtype)))

    def columns(self, images: Tensor) -> Tensor:
        """(B, C, H, N) to (B, C, H, M)."""
        lines = images.reshape(-1, images.shape[3])
        parts = [torch.mm(lines.narrow(1, first, width), block.T) for first, width, block in self.blocks]
        return torch.cat(parts, dim=1).reshape(*images.shape[:3], -1)

    def rows(self, images: Tensor) -> Tensor:
        """(B, C, N, W) to (B, C, M, W)."""
        planes = images.flatten(0, 1)
        parts = [
            torch.bmm(block.expand(len(planes), -1, -1), planes.narrow(1, first, width))
            for first, width, block in self.blocks
        ]
        return torch.cat(parts, dim=1).reshape(*images.shape[:2], -1, images.shape[3])


class Gaussian:
    """A Gaussian blur of uint8 images, edges replicated.

    Args:
        sigma: standard deviation in pixels.
    """

    def __init__(self, sigma: float) -> None:
        self.taps = whole(gaussian_taps(sigma))
        self._bands: dict[tuple[int, torch.dtype, torch.device], Banded] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Blur (B, C, H, W) uint8 and cut to whole grey levels: uint8."""
        if len(self.taps) == 1:
            return images
        single = summing(images.device)
        blurred = self._band(images.shape[3], single, images.device).columns(images.to(single))
        blurred = self._band(images.shape[2], torch.float64, images.device).rows(blurred.to(torch.float64))
        return blurred.mul_(1.0 / (ONE * ONE)).to(torch.uint8)

    def _band(self, side: int, dtype: torch.dtype, device: torch.device) -> Banded:
        key = (side, dtype, device)
        if key not in self._bands:
            self._bands[key] = Banded(axis_matrix(self.taps, side, "replicate"), dtype, device)
        return self._bands[key]


class Correlation:
    """Correlation with one small kernel, edges reflected without repeating them.

    Its one pass has room for weights of 24 bits in double precision. Means over a flat kernel are often whole, so what
    lacks less to the next level than the weights may err by counts as that level.

    Args:
        kernel: (K, K) with K odd, its entries not negative and with a sum near 1.
    """

    _ONE = 2**24
    _MISSING = 2.0**-8

    def __init__(self, kernel: NDArray[np.float64]) -> None:
        self.kernel = whole(kernel, self._ONE)
        self._prepared: dict[tuple[int, int, torch.device], Tensor] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Filter (B, C, H, W) uint8 and cut to whole grey levels: uint8."""
        dense = images.shape[2] * images.shape[3] <= DENSE_PIXELS
        total = self._by_matrix(images) if dense else self._by_transform(images)
        return total.mul_(1.0 / self._ONE).add_(self._MISSING).clamp_(0.0, 255.0).to(torch.uint8)

    def _by_matrix(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        key = (height, width, images.device)
        if key not in self._prepared:
            matrix = image_matrix(self.kernel, height, width)
            self._prepared[key] = torch.from_numpy(matrix.T.copy()).to(images.device)
        return torch.matmul(images.flatten(2).to(torch.float64), self._prepared[key]).reshape(images.shape)

    def _by_transform(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        radius = len(self.kernel) // 2
        sides = fast_length(height + 2 * radius), fast_length(width + 2 * radius)
        key = (height, width, images.device)
        if key not in self._prepared:
            spread = np.zeros(sides)
            spread[: len(self.kernel), : len(self.kernel)] = self.kernel[::-1, ::-1]
            self._prepared[key] = torch.fft.rfft2(torch.from_numpy(spread).to(images.device))
        padded = _reflected(images.to(torch.float64), radius)
        spectrum = torch.fft.rfft2(padded, s=sides).mul_(self._prepared[key])
        found: Tensor = torch.fft.irfft2(spectrum, s=sides)
        # The true sums are whole, and the transform errs by far less than a half.
        return found[:, :, 2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width].round()


def _reflected(images: Tensor, radius: int) -> Tensor:
    """Images with `radius` pixels more on every side."""
    if radius < min(images.shape[2:]):
        return pad(images, (radius,) * 4, mode="reflect")
    rows, columns = (
        torch.from_numpy(beyond(np.arange(-radius, side + radius), side, "reflect")).to(images.device)
        for side in images.shape[2:]
    )
    return images.index_select(2, rows).index_select(3, columns)


def image_matrix(kernel: NDArray[np.int64], height: int, width: int) -> NDArray[np.float64]:
    """A kernel as one matrix over all pixels, edges reflected: (H W, H W); row p holds what pixel p becomes."""
    matrix = np.zeros((height * width, height * width))
    radius = len(kernel) // 2
    pixels = np.arange(height * width)
    for down, right in np.argwhere(kernel):
        rows = beyond(np.arange(height) + down - radius, height, "reflect")
        columns = beyond(np.arange(width) + right - radius, width, "reflect")
        sources = (rows[:, None] * width + columns[None, :]).ravel()
        np.add.at(matrix, (pixels, sources), float(kernel[down, right]))
    return matrix


def fast_length(least: int) -> int:
    """The smallest number from `least` on that only 2, 3 and 5 divide."""
    length = least
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1
