"""JPEG compression with 4:2:0 chroma (ICLR 2019): libjpeg through Pillow, or the same steps on the device."""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from robusteval.shifts.corruption import Corruption
from robusteval.shifts.draws import Draws


class JpegCompression(Corruption):
    """Saved as JPEG at a quality and read again."""

    name = "jpeg_compression"

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        found = np.empty(images.shape, dtype=np.uint8)
        for row, image in enumerate(images.cpu().numpy()):
            found[row] = _through_pillow(image, self.constants)
        return torch.from_numpy(found).to(images.device)


def _through_pillow(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """One image (3, H, W) encoded and decoded; channels are joined and taken apart by Pillow, which is faster at it."""
    _, height, width = image.shape
    channels = [Image.frombuffer("L", (width, height), channel, "raw", "L", 0, 1) for channel in image]
    stream = io.BytesIO()
    Image.merge("RGB", channels).save(stream, "JPEG", quality=quality)
    with Image.open(stream, formats=("JPEG",)) as decoded:
        decoded.load()
        parts = [np.frombuffer(decoded.tobytes("raw", band), dtype=np.uint8) for band in "RGB"]
    return np.stack(parts).reshape(image.shape)
