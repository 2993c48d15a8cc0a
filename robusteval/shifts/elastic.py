"""Elastic transform: a random affine map, then a smooth random displacement (Hendrycks and Dietterich, ICLR 2019)."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from robusteval.shifts.corruption import Corruption
from robusteval.shifts.draws import LEVELS, Draws
from robusteval.shifts.filters import ONE, axis_matrix, gaussian_taps, whole

_ROUNDING = 2.0**-10


class ElasticTransform(Corruption):
    """Two bilinear resamplings in a row.

    Three points around the middle are moved by up to `affine` pixels and the image with them, edges reflected without
    repeating them. Then each pixel is read from alpha times a Gaussian blur (deviation sigma, cut off at three) of
    numbers uniform in (-1, 1) further away, edges reflected and repeated. Coordinates are not rounded to 32nds of a
    pixel, as OpenCV does.
    """

    name = "elastic_transform"
    random = True

    @cached_property
    def _matrices(self) -> dict[tuple[int, torch.device], Tensor]:
        return {}

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        alpha, _, jitter = self.constants
        pixels = images.to(torch.float32)
        affine = torch.from_numpy(self._affine_maps(images, draws, jitter)).to(images.device)
        warped = grid_sample(
            pixels, self._affine_grid(affine, images), mode="bilinear", padding_mode="reflection", align_corners=True
        )
        if alpha > 0:
            grid = self._displaced_grid(images, draws, alpha)
            warped = grid_sample(warped, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        return warped.add_(_ROUNDING).clamp_(0.0, 255.0).to(torch.uint8)

    def _affine_maps(self, images: Tensor, draws: Draws, jitter: float) -> NDArray[np.float64]:
        """Maps from a pixel (x, y, 1) of the result to the image: (B, 2, 3)."""
        centre = np.array(images.shape[2:]) // 2
        leg = min(images.shape[2:]) // 3
        before = np.stack([centre + leg, [centre[0] + leg, centre[1] - leg], centre - leg]).astype(np.float64)
        moves = draws.uniform(6, "affine").reshape(-1, 3, 2) * (2.0 * jitter) - jitter
        after = np.concatenate([before + moves, np.ones((len(moves), 3, 1))], axis=2)
        return np.stack([np.linalg.solve(points, before).T for points in after])

    def _affine_grid(self, affine: Tensor, images: Tensor) -> Tensor:
        """Where to read, in [-1, 1] from the centre of the first to that of the last pixel: (B, H, W, 2)."""
        height, width = images.shape[2:]
        scale = torch.tensor([2.0 / (width - 1), 2.0 / (height - 1)], dtype=torch.float64, device=images.device)
        maps = affine * scale[:, None]
        columns = torch.arange(width, device=images.device, dtype=torch.float64)[:, None]
        rows = torch.arange(height, device=images.device, dtype=torch.float64)[:, None, None]
        along = columns * maps[:, None, None, :, 0]
        down = rows * maps[:, None, None, :, 1] + (maps[:, None, None, :, 2] - 1.0)
        return (along + down).to(torch.float32)

    def _displaced_grid(self, images: Tensor, draws: Draws, alpha: float) -> Tensor:
        """Where to read, in [-1, 1] from edge to edge: (B, H, W, 2)."""
        height, width = images.shape[2:]
        noise = draws.halfwords((2, height, width), "displacement").to(torch.float64).mul_(2.0).add_(1.0)
        smooth = noise
        if self.constants[1] > 0:
            # Whole numbers of 17 and twice 16 bits: exact in double precision.
            rows, columns = (self._matrix(side, images.device) for side in (height, width))
            smooth = torch.matmul(rows, torch.matmul(noise, columns.T)).mul_(1.0 / (ONE * ONE))
        moves = smooth.mul_(alpha / LEVELS)
        columns, rows = (torch.arange(side, device=images.device, dtype=torch.float64) for side in (width, height))
        across = (moves[:, 0] + columns).mul_(2.0 / width).add_(1.0 / width - 1.0)
        along = (moves[:, 1] + rows[:, None]).mul_(2.0 / height).add_(1.0 / height - 1.0)
        return torch.stack([across, along], dim=-1).to(torch.float32)

    def _matrix(self, side: int, device: torch.device) -> Tensor:
        if (side, device) not in self._matrices:
            taps = whole(gaussian_taps(self.constants[1], truncate=3.0))
            self._matrices[side, device] = torch.from_numpy(axis_matrix(taps, side, "symmetric")).to(device)
        return self._matrices[side, device]
