"""Changes of style without data of their own: channel statistics, edges, posterised colours, a colour cast.

They make a domain out of any image set, in the spirit of AdaIN style transfer (Huang and Belongie, ICCV 2017), of the
sketches of PACS (Li et al., ICCV 2017) and of the posterisation of AutoAugment (Cubuk et al., CVPR 2019). They are no
part of a published benchmark, and their strengths are our own.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from robusteval.schema.types import Frozen
from robusteval.shifts.base import Shift
from robusteval.shifts.draws import Draws

_ROUNDING = 2.0**-10
_LUMA = (0.299, 0.587, 0.114)


class StyleParams(Frozen):
    """How strong a change of style is."""

    severity: Annotated[int, Field(ge=1, le=5, strict=True)] = 3
    """From 1 to 5."""


class Style(Shift[StyleParams]):
    """A change of style at one severity."""

    Params = StyleParams

    @property
    def domain(self) -> str:
        """Name and severity, such as `sketch-3`."""
        return f"{self.name}-{self.params.severity}"


class ChannelStatistics(Style):
    """Mean and deviation of each channel replaced, in part, by those of a random style.

    x becomes (1 - a) x + a (s (x - mu) / sigma + m) with a = severity / 5, m uniform in [64, 192] and s in [24, 72]
    grey levels, one pair a channel and example.
    """

    name = "channel-statistics"
    random = True

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        share = self.params.severity / 5
        uniform = torch.from_numpy(draws.uniform(6, "style")).to(images.device).reshape(-1, 2, 3, 1, 1)
        mean, deviation = channel_moments(images)
        new_mean, new_deviation = 64.0 + 128.0 * uniform[:, 0], 24.0 + 48.0 * uniform[:, 1]
        scale = 1.0 - share + share * new_deviation / deviation
        offset = share * (new_mean - mean * new_deviation / deviation)
        return _levels(images.to(torch.float32).mul_(scale.to(torch.float32)).add_(offset.to(torch.float32)))


class Sketch(Style):
    """Dark strokes on white where the grey level changes, blended over the image.

    Strokes are the size of Sobel's gradient times `severity` / 2; the share of the drawing is (1 + severity) / 6.
    """

    name = "sketch"

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        severity = self.params.severity
        pixels = images.to(torch.float32)
        grey = pixels[:, 0:1] * _LUMA[0] + pixels[:, 1:2] * _LUMA[1] + pixels[:, 2:3] * _LUMA[2]
        padded = torch.nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")
        across = padded[:, :, :, 2:] - padded[:, :, :, :-2]
        down = padded[:, :, 2:] - padded[:, :, :-2]
        right = across[:, :, :-2] + across[:, :, 1:-1] * 2.0 + across[:, :, 2:]
        below = down[:, :, :, :-2] + down[:, :, :, 1:-1] * 2.0 + down[:, :, :, 2:]
        strokes = right.abs().add_(below.abs()).mul_(0.25 * severity)
        drawing = (255.0 - strokes).clamp_(0.0, 255.0)
        share = (1 + severity) / 6
        return _levels(pixels.mul_(1.0 - share).add_(drawing.mul_(share)))


class Posterise(Style):
    """Each channel in few equal steps: 12, 8, 5, 3 or 2 levels, from black to white."""

    name = "posterise"

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        steps = (12, 8, 5, 3, 2)[self.params.severity - 1] - 1
        levels = np.rint(np.rint(np.arange(256) * (steps / 255.0)) * (255.0 / steps)).astype(np.uint8)
        table = torch.from_numpy(levels).to(images.device)
        return table.index_select(0, images.flatten().to(torch.int32)).reshape(images.shape)


class ColourCast(Style):
    """Light of another colour: each channel times a random gain, the product of the three gains being 1.

    Gains are 2 to the power of severity / 5 times the three components of a random direction in the plane of hues.
    """

    name = "colour-cast"
    random = True

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        angle = 2.0 * np.pi * (draws.uniform(1, "hue") + np.arange(3) / 3)
        gains = np.exp2(self.params.severity / 5 * np.cos(angle)).astype(np.float32)
        cast = torch.from_numpy(gains).to(images.device)[:, :, None, None]
        return _levels(images.to(torch.float32).mul_(cast))


def channel_moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (at least 1 grey level) of each channel: (B, C, 1, 1) float64, from exact sums."""
    count = images.shape[2] * images.shape[3]
    whole = images.to(torch.int64)
    total = whole.sum(dim=(2, 3), keepdim=True)
    squares = (whole * whole).sum(dim=(2, 3), keepdim=True)
    variance = (squares * count - total * total).to(torch.float64) / count**2
    return total.to(torch.float64) / count, variance.sqrt().clamp(min=1.0)


def _levels(pixels: Tensor) -> Tensor:
    return pixels.add_(_ROUNDING).clamp_(0.0, 255.0).to(torch.uint8)
