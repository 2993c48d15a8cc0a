"""Snow: large flakes blown by the wind over a whitened image (Hendrycks and Dietterich, ICLR 2019)."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from robusteval.shifts.blur import zoom_matrix, zoomed_sides
from robusteval.shifts.corruption import Corruption
from robusteval.shifts.draws import Draws, look_up, normal_quantiles
from robusteval.shifts.filters import ONE, Banded, whole_rows
from robusteval.shifts.motion import Motion

_LUMA = (0.299, 0.587, 0.114)
_ROUNDING = 2.0**-10


class Snow(Corruption):
    """Flakes of normal noise, zoomed, cut off below a threshold and blurred along a falling ray, added both ways up.

    The image under them is mix x + (1 - mix) max(x, 1.5 grey + 0.5).
    """

    name = "snow"
    random = True

    @cached_property
    def _motion(self) -> Motion:
        return Motion(*self.constants[4:6])

    @cached_property
    def _noise(self) -> Tensor:
        """The noise in units of 1 / `ONE`, whole, so that its zoom is exact in double precision."""
        mean, deviation = self.constants[:2]
        return torch.from_numpy(np.rint((mean + deviation * normal_quantiles()) * ONE))

    @cached_property
    def _zooms(self) -> dict[tuple[int, torch.device], Banded]:
        return {}

    def _zoom(self, side: int, factor: float, device: torch.device) -> Banded:
        if (side, device) not in self._zooms:
            first, cut, *_ = zoomed_sides(side, factor)
            matrix = whole_rows(zoom_matrix(side, factor)[:, first : first + cut])
            self._zooms[side, device] = Banded(matrix, torch.float64, device)
        return self._zooms[side, device]

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        mix = self.constants[6]
        flakes = self._flakes(images.shape[2], images.shape[3], draws)
        flakes = flakes + flakes.flip(2, 3)
        pixels = images.to(torch.float32)
        grey = pixels[:, 0:1] * _LUMA[0] + pixels[:, 1:2] * _LUMA[1] + pixels[:, 2:3] * _LUMA[2]
        white = grey.mul_(1.5).add_(127.5)
        whitened = torch.maximum(pixels, white).mul_(1.0 - mix).add_(flakes)
        return whitened.add_(pixels.mul_(mix)).add_(_ROUNDING).clamp_(0.0, 255.0).to(torch.uint8)

    def _flakes(self, height: int, width: int, draws: Draws) -> Tensor:
        """Whole grey levels (B, 1, H, W) float32."""
        _, _, factor, threshold = self.constants[:4]
        device = draws.keys.device
        down, along = (self._zoom(side, factor, device) for side in (height, width))
        shape = (1, zoomed_sides(height, factor)[1], zoomed_sides(width, factor)[1])
        noise = look_up(self._noise.to(device), draws.halfwords(shape, "flakes"))
        layer = down.rows(along.columns(noise)).mul_(1.0 / ONE**3)
        layer = torch.where(layer < threshold, 0.0, layer).clamp_(0.0, 1.0).mul_(255.0).to(torch.uint8)
        degrees = -135.0 + 90.0 * draws.uniform(1, "wind")[:, 0]
        return self._motion(layer, degrees).round_()
