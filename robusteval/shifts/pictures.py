"""Images between arrays with channels first and Pillow, which joins and splits channels faster than a transpose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def to_picture(image: NDArray[np.uint8]) -> Image.Image:
    """A contiguous (3, H, W) array as an RGB picture."""
    _, height, width = image.shape
    bands = [Image.frombuffer("L", (width, height), channel, "raw", "L", 0, 1) for channel in image]
    return Image.merge("RGB", bands)


def from_picture(picture: Image.Image, found: NDArray[np.uint8]) -> None:
    """Write an RGB picture into a (3, H, W) array."""
    for channel, band in zip(found, "RGB", strict=True):
        channel.ravel()[:] = np.frombuffer(picture.tobytes("raw", band), dtype=np.uint8)
