"""Rims of shapes (Canny, A computational approach to edge detection, IEEE PAMI 1986) and the distance to them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

WEAK, STRONG = 50, 150
"""Gradients that a rim needs everywhere, and somewhere."""
_TANGENT, _TANGENT_BITS = 13573, 15
"""Tangent of 22.5 degrees in units of 2**-15; that of 67.5 degrees is larger by 2."""
_WITHIN = np.array([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))], dtype=np.bool_)
"""Regions grow over sides and corners, within an image."""


def rim_pixels(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Crests of the gradient that hang together with a strong one: (B, H, W), pixel for pixel as OpenCV finds them."""
    right, down = (np.pad(part, ((0, 0), (1, 1), (1, 1))) for part in gradients(images))
    size = np.abs(right) + np.abs(down)
    stride = size.shape[2]
    flat = size.ravel()
    places = np.flatnonzero(flat > WEAK)
    across, along = (np.take(part.ravel(), places).astype(np.int32) for part in (right, down))
    falling = (across < 0) == (along < 0)
    wide, tall = np.abs(across) * _TANGENT, np.abs(along) << _TANGENT_BITS
    horizontal = tall < wide
    vertical = tall > wide + (np.abs(across) << (_TANGENT_BITS + 1))
    step = np.where(horizontal, 1, np.where(vertical, stride, np.where(falling, stride + 1, stride - 1)))
    own, before, after = (np.take(flat, where) for where in (places, places - step, places + step))
    # Of two equal neighbours along an axis the first counts.
    crest = (own > before) & (own > after - (horizontal | vertical))
    weak = np.zeros(size.shape, dtype=np.bool_)
    weak.ravel()[places[crest]] = True
    regions, count = label(weak, structure=_WITHIN)
    kept = np.zeros(count + 1, dtype=np.bool_)
    kept[np.take(regions.ravel(), places[crest & (own > STRONG)])] = True
    rims: NDArray[np.bool_] = np.take(kept, regions[:, 1:-1, 1:-1])
    return rims


def gradients(images: NDArray[np.uint8]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Sobel's derivatives to the right and down, edges replicated: (B, H, W) each."""
    padded = np.pad(images.astype(np.int16), ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = padded[:, :, 2:] - padded[:, :, :-2]
    down = padded[:, 2:] - padded[:, :-2]
    right: NDArray[np.int16] = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    below: NDArray[np.int16] = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return right, below


def distance_to(shapes: NDArray[np.bool_], most: int) -> NDArray[np.float32]:
    """Euclidean distance in pixels to the nearest true pixel, at most `most`: (B, H, W) float32.

    Squared distances are minima over both axes in turn, and along an axis k^2 = 1 + 3 + ... + (2 k - 1), so `most`
    comparisons with the next neighbour find them.
    """
    squared = np.where(shapes, np.int16(0), np.int16(most * most))
    longer = np.empty_like(squared)
    every, head, tail = slice(None), slice(None, -1), slice(1, None)
    for first, rest in (((every, head, every), (every, tail, every)), ((every, every, head), (every, every, tail))):
        for step in range(1, most + 1):
            np.add(squared, np.int16(2 * step - 1), out=longer)
            np.minimum(squared[first], longer[rest], out=squared[first])
            np.minimum(squared[rest], longer[first], out=squared[rest])
    roots = np.sqrt(np.arange(most * most + 1, dtype=np.float32))
    return np.take(roots, squared)
