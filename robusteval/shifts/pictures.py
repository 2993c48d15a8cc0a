"""Images between arrays with channels first and Pillow, which joins and splits channels faster than a transpose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SMALL = 64 * 64
"""Images of up to so many pixels are transposed, which takes fewer calls."""


def to_picture(image: NDArray[np.uint8]) -> Image.Image:
    """A contiguous (3, H, W) array as an RGB picture."""
    _, height, width = image.shape
    if height * width <= _SMALL:
        pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
        return Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)
    bands = [Image.frombuffer("L", (width, height), channel, "raw", "L", 0, 1) for channel in image]
    return Image.merge("RGB", bands)


def from_picture(picture: Image.Image, found: NDArray[np.uint8]) -> None:
    """Write an RGB picture into a (3, H, W) array."""
    if picture.width * picture.height <= _SMALL:
        pixels = np.frombuffer(picture.tobytes(), dtype=np.uint8)
        found[:] = pixels.reshape(picture.height, picture.width, 3).transpose(2, 0, 1)
        return
    for channel, band in zip(found, "RGB", strict=True):
        channel.ravel()[:] = np.frombuffer(picture.tobytes("raw", band), dtype=np.uint8)
