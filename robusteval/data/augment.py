"""Augmentation of training batches on their device, each image with draws of its own.

All draws of a batch are made at once by a CPU generator and moved in one small transfer, so every device sees the same
ones and nothing waits for the device. An augmentation is a pure function of (images, draws); it works on the whole
batch without a loop over images.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from robusteval.data import AUGMENTATIONS
from robusteval.schema.params import checked_params
from robusteval.schema.types import Component, Fraction01, Frozen, NonNegativeFloat, PositiveFloat, PositiveInt

P = TypeVar("P", bound=Frozen)

_LUMA = (0.299, 0.587, 0.114)


class Augmentation(ABC, Generic[P]):
    """A random change of images that keeps their labels and shape.

    Args:
        params: validated parameters.
    """

    Params: ClassVar[type[Frozen]]
    """Parameters that a suite may set."""
    draws: ClassVar[int]
    """Uniform numbers that one image needs."""

    def __init__(self, params: P) -> None:
        self.params = params

    @abstractmethod
    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """Change images (B, C, H, W) in [0, 1] as draws (B, `draws`) in [0, 1) on the same device say."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw with a CPU generator and apply."""
        return self.apply(images, _draw(images, self.draws, generator))


def _draw(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return torch.rand((len(images), count), generator=generator).to(images.device, non_blocking=True)


def build_augmentations(components: Sequence[Component]) -> Callable[[Tensor, torch.Generator], Tensor]:
    """A function that applies augmentations in the given order to (B, C, H, W) images in [0, 1].

    Raises:
        UnknownNameError: no such augmentation.
        DataError: a parameter is wrong.
    """
    parts: list[Augmentation[Any]] = []
    for component in components:
        kind = AUGMENTATIONS.load(component.name)
        parts.append(kind(checked_params(f"augmentation {component.name!r}", kind.Params, component.params)))

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        draws = _draw(images, sum(part.draws for part in parts), generator)
        used = 0
        for part in parts:
            images = part.apply(images, draws[:, used : used + part.draws])
            used += part.draws
        return images

    return augment


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def integers_below(draws: Tensor, count: int) -> Tensor:
    """Uniform integers in [0, count)."""
    return (draws * count).to(torch.int64).clamp_(max=count - 1)


def windows(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """For each image the window of the given size whose corner is (top, left), each (B,) int64."""
    which = torch.arange(len(images), device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    rows = (top[:, None] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (left[:, None] + torch.arange(width, device=images.device))[:, None, None, :]
    return images[which, channels, rows, columns]


class PadCropParams(Frozen):
    """Parameters of `pad-crop`."""

    pad: PositiveInt = 2
    """Pixels added on every side; with `reflect` less than the image's side."""
    mode: Literal["zeros", "reflect"] = "zeros"
    """What is added: black, or the image mirrored at its outermost pixels."""


class PadCrop(Augmentation[PadCropParams]):
    """Pad and cut out a window of the old size at a uniform position."""

    Params = PadCropParams
    draws = 2

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """See `Augmentation.apply`."""
        pad = self.params.pad
        padded = functional.pad(images, [pad] * 4, mode="constant" if self.params.mode == "zeros" else "reflect")
        top, left = (integers_below(draws[:, axis], 2 * pad + 1) for axis in (0, 1))
        return windows(padded, top, left, images.shape[2], images.shape[3])


class TranslateParams(Frozen):
    """Parameters of `translate`."""

    fraction: Fraction01 = 0.1
    """Largest shift along each axis, as a share of the side; whole pixels."""


class Translate(Augmentation[TranslateParams]):
    """Shift by a uniform whole number of pixels along each axis; what comes in is black."""

    Params = TranslateParams
    draws = 2

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """See `Augmentation.apply`."""
        height, width = images.shape[2:]
        most_rows, most_columns = round(self.params.fraction * height), round(self.params.fraction * width)
        padded = functional.pad(images, [most_columns, most_columns, most_rows, most_rows])
        top = integers_below(draws[:, 0], 2 * most_rows + 1)
        left = integers_below(draws[:, 1], 2 * most_columns + 1)
        return windows(padded, top, left, height, width)


class FlipParams(Frozen):
    """Parameters of `flip`."""

    p: Fraction01 = 0.5
    """Probability."""


class Flip(Augmentation[FlipParams]):
    """Mirror left and right."""

    Params = FlipParams
    draws = 1

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """See `Augmentation.apply`."""
        return torch.where(_per_image(draws[:, 0] < self.params.p), images.flip(3), images)


class GrayscaleParams(Frozen):
    """Parameters of `grayscale`."""

    p: Fraction01 = 0.1
    """Probability."""


class Grayscale(Augmentation[GrayscaleParams]):
    """Replace all three channels by the luminance of ITU-R BT.601."""

    Params = GrayscaleParams
    draws = 1

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """See `Augmentation.apply`."""
        return torch.where(_per_image(draws[:, 0] < self.params.p), _luminance(images).expand_as(images), images)


def _luminance(images: Tensor) -> Tensor:
    """(B, 3, H, W) to (B, 1, H, W)."""
    red, green, blue = images.unbind(1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]


class ColourJitterParams(Frozen):
    """Parameters of `colour-jitter`; 0 leaves a property alone."""

    brightness: NonNegativeFloat = 0.3
    """Pixels are multiplied by a factor within [max(0, 1 - b), 1 + b]."""
    contrast: NonNegativeFloat = 0.3
    """Distance from the mean luminance is multiplied by such a factor."""
    saturation: NonNegativeFloat = 0.3
    """Distance from grey is multiplied by such a factor."""
    hue: float = Field(default=0.05, ge=0.0, le=0.5)
    """Hue is turned by up to this share of the colour circle either way."""


class ColourJitter(Augmentation[ColourJitterParams]):
    """Change brightness, contrast, saturation and hue, always in this order, clipping to [0, 1] after each."""

    Params = ColourJitterParams
    draws = 4

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """See `Augmentation.apply`."""
        params = self.params
        if params.brightness:
            images = _blend(torch.zeros_like(images[:, :1]), images, _factor(draws[:, 0], params.brightness))
        if params.contrast:
            grey = _luminance(images).mean(dim=(2, 3), keepdim=True)
            images = _blend(grey, images, _factor(draws[:, 1], params.contrast))
        if params.saturation:
            images = _blend(_luminance(images), images, _factor(draws[:, 2], params.saturation))
        if params.hue:
            images = _turn_hue(images, (2.0 * draws[:, 3] - 1.0) * params.hue)
        return images


def _factor(draws: Tensor, strength: float) -> Tensor:
    low = max(0.0, 1.0 - strength)
    return _per_image(low + draws * (1.0 + strength - low))


def _blend(anchor: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    return (anchor + factor * (images - anchor)).clamp_(0.0, 1.0)


def _turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of the HSV model (Smith, SIGGRAPH 1978) by `turn` (B,), in shares of the circle."""
    red, green, blue = images.unbind(1)
    value, smallest = images.amax(1), images.amin(1)
    chroma = value - smallest
    scale = torch.where(chroma > 0, chroma, 1.0)
    sector = torch.where(
        value == red,
        (green - blue) / scale,
        torch.where(value == green, 2.0 + (blue - red) / scale, 4.0 + (red - green) / scale),
    )
    sector = sector + 6.0 * turn[:, None, None]

    def channel(offset: float) -> Tensor:
        distance = torch.remainder(sector + offset, 6.0)
        return value - chroma * torch.minimum(distance, 4.0 - distance).clamp(0.0, 1.0)

    return torch.stack([channel(5.0), channel(3.0), channel(1.0)], dim=1).clamp_(0.0, 1.0)


class RandomResizedCropParams(Frozen):
    """Parameters of `random-resized-crop`."""

    scale: tuple[PositiveFloat, PositiveFloat] = (0.5, 1.0)
    """Smallest and largest share of the image's area."""
    ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)
    """Smallest and largest width over height, drawn on a logarithmic scale."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if not self.scale[0] <= self.scale[1] <= 1:
            raise ValueError("scale must be two numbers in (0, 1], the smaller first")
        if not self.ratio[0] <= self.ratio[1]:
            raise ValueError("ratio must be two numbers, the smaller first")
        return self


class RandomResizedCrop(Augmentation[RandomResizedCropParams]):
    """Cut out a rectangle of random area and shape and resize it bilinearly to the old size.

    A side longer than the image's is cut to it (no second draw), and enlarging needs no antialiasing.
    """

    Params = RandomResizedCropParams
    draws = 4

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """See `Augmentation.apply`."""
        (low, high), (narrow, wide) = self.params.scale, self.params.ratio
        area = low + draws[:, 0] * (high - low)
        ratio = torch.exp(math.log(narrow) + draws[:, 1] * (math.log(wide) - math.log(narrow)))
        aspect = images.shape[3] / images.shape[2]
        width = torch.sqrt(area * ratio / aspect).clamp(max=1.0)
        height = torch.sqrt(area / ratio * aspect).clamp(max=1.0)
        # The grid spans [-1, 1]: a window of share w may have its centre within 1 - w of the middle.
        centre_x = (2.0 * draws[:, 2] - 1.0) * (1.0 - width)
        centre_y = (2.0 * draws[:, 3] - 1.0) * (1.0 - height)
        zero = torch.zeros_like(width)
        rows = [torch.stack(row, dim=1) for row in ((width, zero, centre_x), (zero, height, centre_y))]
        grid = functional.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, padding_mode="border", align_corners=False).clamp_(0.0, 1.0)
