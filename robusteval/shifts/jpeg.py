"""JPEG compression with 4:2:0 chroma (ICLR 2019): libjpeg through Pillow, or the same whole numbers on the device.

The lossless part of a JPEG changes nothing, so what is left is colour conversion, halved chroma, two passes of the
integer transform of libjpeg (Loeffler, Ligtenberg and Moschytz, ICASSP 1989), quantisation (ITU-T T.81), and the way
back. Every step is a sum of whole numbers and a rounded shift, hence exact in double precision on any device.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from robusteval.shifts.corruption import Corruption
from robusteval.shifts.draws import Draws
from robusteval.shifts.pictures import from_picture, to_picture

_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *(((99,) * 8,) * 4),
)
"""Quantisation steps at quality 50 (ITU-T T.81, tables K.1 and K.2)."""
_TO_YCBCR = (
    (19595, 38470, 7471, 2**15),
    (-11059, -21709, 2**15, 2**23 + 2**15 - 1),
    (2**15, -27439, -5329, 2**23 + 2**15 - 1),
)
_RED, _GREEN, _BLUE = 91881, (-22554, -46802), 116130
"""Colour conversion in units of 2**-16."""


class JpegCompression(Corruption):
    """Saved as JPEG at a quality and read again.

    `replay` is Pillow's libjpeg for images on a CPU; elsewhere, and in `fast`, the same steps are taken on the device.
    The tolerance is zero against libjpeg and libjpeg-turbo with their default transform.
    """

    name = "jpeg_compression"

    def piece(self, images: Tensor) -> int:
        """See `Shift.piece`; Pillow takes one image at a time anyway."""
        return len(images) if self.params.mode == "replay" and images.device.type == "cpu" else super().piece(images)

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        if self.params.mode == "fast" or images.device.type != "cpu":
            return on_device(images, self.constants)
        found = np.empty(images.shape, dtype=np.uint8)
        for image, decoded in zip(images.numpy(), found, strict=True):
            stream = io.BytesIO()
            to_picture(image).save(stream, "JPEG", quality=self.constants)
            stream.seek(0)
            from_picture(JpegImageFile(stream), decoded)
        return torch.from_numpy(found)


def quantisation(table: tuple[tuple[int, ...], ...], quality: int) -> NDArray[np.float64]:
    """Steps (8, 8) at a quality from 1 to 100, as libjpeg scales a table."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps: NDArray[np.float64] = np.clip((np.array(table) * scale + 50) // 100, 1, 255).astype(np.float64)
    return steps


def transform() -> NDArray[np.float64]:
    """The transform along an axis, (8, 8) in units of 2**-13: the rounded factors of libjpeg, multiplied out."""
    pixels = np.eye(8)
    even, odd = pixels[:4] + pixels[:3:-1], pixels[:4] - pixels[:3:-1]
    outer, inner = even[0] - even[3], even[1] - even[2]
    t7, t6, t5, t4 = odd
    shared = 9633 * (t4 + t6 + t5 + t7)
    z1, z2, z3, z4 = -7373 * (t4 + t7), -20995 * (t5 + t6), shared - 16069 * (t4 + t6), shared - 3196 * (t5 + t7)
    return np.stack(
        [
            8192 * even.sum(axis=0),
            12299 * t7 + z1 + z4,
            4433 * (inner + outer) + 6270 * outer,
            25172 * t6 + z2 + z3,
            8192 * (even[0] + even[3] - even[1] - even[2]),
            16819 * t5 + z2 + z4,
            4433 * (inner + outer) - 15137 * inner,
            2446 * t4 + z1 + z3,
        ]
    )


def on_device(images: Tensor, quality: int) -> Tensor:
    """JPEG without the lossless part: (B, 3, H, W) uint8 to the same."""
    height, width = images.shape[2:]
    colours = _extended(_extended(images.to(torch.float64), 3, 16), 2, 2)
    red, green, blue = colours.unbind(1)
    planes = [_shifted(red * r + green * g + blue * b, 16, offset) for r, g, b, offset in _TO_YCBCR]
    bright = _coded(_extended(planes[0], 1, 8), quantisation(_LUMINANCE, quality))[:, :height, :width]
    chroma = _extended(_halved(torch.stack(planes[1:], dim=1)), 2, 8)
    coded = _coded(chroma, quantisation(_CHROMINANCE, quality))[:, :, : -(-height // 2), : -(-width // 2)]
    bluish, reddish = (_doubled(coded)[:, :, :height, :width] - 128.0).unbind(1)
    found = torch.stack(
        [
            bright + _shifted(reddish * _RED, 16),
            bright + _shifted(bluish * _GREEN[0] + reddish * _GREEN[1], 16),
            bright + _shifted(bluish * _BLUE, 16),
        ],
        dim=1,
    )
    return found.clamp_(0.0, 255.0).to(torch.uint8)


def _shifted(numbers: Tensor, bits: int, half: int | None = None) -> Tensor:
    """Whole numbers over 2**bits, rounded with halves up (or after adding `half` instead)."""
    return (numbers + (2 ** (bits - 1) if half is None else half)).mul_(2.0**-bits).floor_()


def _extended(planes: Tensor, axis: int, multiple: int) -> Tensor:
    """The last pixel repeated until the side is a multiple of some number."""
    side = planes.shape[axis]
    places = torch.arange(-(-side // multiple) * multiple, device=planes.device).clamp_(max=side - 1)
    return planes.index_select(axis, places)


def _coded(planes: Tensor, steps: NDArray[np.float64]) -> Tensor:
    """Planes (..., H, W) of whole levels, transformed in blocks of 8 x 8, quantised, and back."""
    basis = torch.from_numpy(transform()).to(planes.device)
    step = torch.from_numpy(steps).to(planes.device)
    *lead, height, width = planes.shape
    blocks = planes.reshape(*lead, height // 8, 8, width // 8, 8).transpose(-3, -2) - 128.0
    # Two bits more than whole numbers between the passes; the spectrum is 8 times too large.
    spectrum = _shifted(torch.matmul(basis, _shifted(torch.matmul(blocks, basis.T), 11)), 15)
    kept = ((spectrum.abs() + 4.0 * step) / (8.0 * step)).floor_().mul_(spectrum.sign()).mul_(step)
    back = _shifted(torch.matmul(_shifted(torch.matmul(basis.T, kept), 11), basis), 18)
    return back.add_(128.0).clamp_(0.0, 255.0).transpose(-3, -2).reshape(planes.shape)


def _halved(planes: Tensor) -> Tensor:
    """Means of 2 x 2 pixels; halves go down and up by turns, as in libjpeg."""
    total = planes[..., 0::2, 0::2] + planes[..., 0::2, 1::2] + planes[..., 1::2, 0::2] + planes[..., 1::2, 1::2]
    bias = torch.arange(total.shape[-1], device=planes.device, dtype=planes.dtype).remainder_(2.0).add_(1.0)
    return total.add_(bias).mul_(0.25).floor_()


def _doubled(planes: Tensor) -> Tensor:
    """Twice the height and width by weights of 3/4 and 1/4, as in libjpeg."""
    wide = _interleaved(_interleaved(planes, 2), 3)
    # Sixteenths go up for one of two neighbours and down for the other.
    bias = torch.tensor([8.0, 7.0], device=planes.device, dtype=planes.dtype).repeat(planes.shape[3])
    return wide.add_(bias).mul_(1.0 / 16.0).floor_()


def _interleaved(planes: Tensor, axis: int) -> Tensor:
    """Along one axis, 3 times each value plus its neighbour before, then 3 times plus its neighbour behind."""
    side = planes.shape[axis]
    own = torch.arange(side, device=planes.device)
    before, behind = (planes.index_select(axis, (own + step).clamp_(0, side - 1)) for step in (-1, 1))
    return torch.stack([planes * 3.0 + before, planes * 3.0 + behind], dim=axis + 1).flatten(axis, axis + 1)
