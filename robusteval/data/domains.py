"""The eight domains of the digits: procedural, seeded by example, and exact.

A domain is a function of the ink (N, S, S) float64 in [0, 1] and of (N, k) uniform draws in [0, 1), one row an
example. Only additions, multiplications, divisions, comparisons and gathers touch an image, never a sum whose order
depends on the shape, so an example looks the same to the last bit alone and inside any batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from robusteval.schema.digest import stable_int

Array = NDArray[np.float64]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luminance of ITU-R BT.601."""
_TEXTURE_CELLS = 6
_CONTRAST = 0.4
_LEAST_BLUR, _MOST_BLUR = 3, 6


@dataclass(frozen=True)
class Domain:
    """One way to draw a digit.

    Attributes:
        render: maps ink (N, S, S) and draws (N, `draws`) to colours (N, S, S, 3) in [0, 1].
        draws: uniform numbers that one example needs.
        summary: one line for listings.
    """

    render: Callable[[Array, Array], Array]
    draws: int
    summary: str


def uniform_draws(scope: str, sources: Sequence[str], count: int) -> Array:
    """Uniform numbers that depend on (scope, source) alone.

    The raw words of numpy's Philox are used, because only they are promised to stay the same in later versions.

    Args:
        scope: what the numbers are for, such as dataset revision and domain.
        sources: N names, one a row.
        count: numbers per row.

    Returns:
        (N, count) float64 in [0, 1).
    """
    words = np.empty((len(sources), count), dtype=np.uint64)
    for row, source in enumerate(sources):
        words[row] = np.random.Philox(key=stable_int(scope, source)).random_raw(count)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def upsample(images: Array) -> Array:
    """Double height and width by bilinear interpolation with pixel centres at half integers: (N, 2H, 2W)."""
    doubled = _upsample_rows(images)
    return _upsample_rows(doubled.transpose(0, 2, 1)).transpose(0, 2, 1)


def _upsample_rows(images: Array) -> Array:
    above = np.concatenate([images[:, :1], images[:, :-1]], axis=1)
    below = np.concatenate([images[:, 1:], images[:, -1:]], axis=1)
    pairs = np.stack([0.75 * images + 0.25 * above, 0.75 * images + 0.25 * below], axis=2)
    return pairs.reshape(images.shape[0], -1, images.shape[2])


def to_uint8(colours: Array) -> NDArray[np.uint8]:
    """Colours in [0, 1] as bytes, halves rounded to even."""
    return np.rint(np.clip(colours, 0.0, 1.0) * 255.0).astype(np.uint8)


def _grey(values: Array) -> Array:
    return np.repeat(values[..., None], 3, axis=-1)


def _over(ink: Array, colour: Array, ground: Array) -> Array:
    """Ink of one colour (N, 3) laid over a ground (N, S, S, 3)."""
    cover = ink[..., None]
    return cover * colour[:, None, None, :] + (1.0 - cover) * ground


def _luminance(colours: Array) -> Array:
    red, green, blue = (colours[..., channel] for channel in range(3))
    luminance: Array = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return luminance


def _contrasting(colours: Array, ground: Array) -> Array:
    """Colours (N, 3) mixed with white over a dark ground, with black over a bright one, as far as contrast needs.

    Args:
        colours: any colours.
        ground: (N,) luminance that they must differ from by `_CONTRAST`.
    """
    luminance = _luminance(colours)
    dark = ground < 0.5
    missing = np.where(dark, ground + _CONTRAST - luminance, luminance - ground + _CONTRAST)
    room = np.maximum(np.where(dark, 1.0 - luminance, luminance), 1e-9)
    share = np.clip(missing / room, 0.0, 1.0)[:, None]
    mixed: Array = colours + share * (np.where(dark, 1.0, 0.0)[:, None] - colours)
    return mixed


def _column(values: Array) -> Array:
    return values[:, None, None]


def _upright(ink: Array, _: Array) -> Array:
    return _grey(ink)


def _inverted(ink: Array, _: Array) -> Array:
    return _grey(1.0 - ink)


def _rotated(ink: Array, draws: Array) -> Array:
    degrees = np.where(draws[:, 0] < 0.5, 1.0, -1.0) * (30.0 + 30.0 * draws[:, 1])
    cosine = _column(np.array([math.cos(math.radians(angle)) for angle in degrees]))
    sine = _column(np.array([math.sin(math.radians(angle)) for angle in degrees]))
    side = ink.shape[1]
    centred = np.arange(side, dtype=np.float64) - (side - 1) / 2
    rows, columns = centred[None, :, None], centred[None, None, :]
    shrink = 1.1
    from_rows = shrink * (cosine * rows + sine * columns) + (side - 1) / 2
    from_columns = shrink * (cosine * columns - sine * rows) + (side - 1) / 2
    return _grey(_sample(ink, from_rows, from_columns))


def _sample(images: Array, rows: Array, columns: Array) -> Array:
    """Bilinear values of (N, S, S) images at real positions (N, S, S); black outside."""
    side = images.shape[1]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    rows, columns = np.clip(rows, -1.0, side) + 1.0, np.clip(columns, -1.0, side) + 1.0
    top = np.minimum(rows.astype(np.int64), side)
    left = np.minimum(columns.astype(np.int64), side)
    down, right = rows - top, columns - left
    which = np.arange(len(images))[:, None, None]
    upper = (1.0 - right) * padded[which, top, left] + right * padded[which, top, left + 1]
    lower = (1.0 - right) * padded[which, top + 1, left] + right * padded[which, top + 1, left + 1]
    values: Array = (1.0 - down) * upper + down * lower
    return values


def _coloured(ink: Array, draws: Array) -> Array:
    ground, colour = draws[:, :3], draws[:, 3:6]
    ground_image = np.broadcast_to(ground[:, None, None, :], (*ink.shape, 3))
    return _over(ink, _contrasting(colour, _luminance(ground)), ground_image)


def _textured(ink: Array, draws: Array) -> Array:
    n, side = ink.shape[:2]
    base, colour = 0.2 + 0.6 * draws[:, :3], draws[:, 3:6]
    noise = draws[:, 6:].reshape(n, _TEXTURE_CELLS, _TEXTURE_CELLS, 3)
    rows = np.broadcast_to(np.linspace(0.0, _TEXTURE_CELLS - 1.0, side)[None, :, None], ink.shape)
    columns = rows.transpose(0, 2, 1)
    field = np.stack([_sample(noise[..., channel], rows, columns) for channel in range(3)], axis=-1)
    ground = np.clip(base[:, None, None, :] + 0.55 * (field - 0.5), 0.0, 1.0)
    return _over(ink, _contrasting(colour, _luminance(base)), ground)


def _stroke(ink: Array, draws: Array) -> Array:
    thick = _neighbourhood(ink, np.maximum)
    thin = _neighbourhood(ink, np.minimum)
    peak = np.maximum(thin.max(axis=(1, 2), keepdims=True), 1e-6)
    return _grey(np.where(_column(draws[:, 0]) < 0.5, thin / peak, thick))


def _neighbourhood(images: Array, extreme: Callable[[Array, Array], Array]) -> Array:
    """Minimum or maximum over a pixel and its four neighbours, black outside."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    vertical = extreme(padded[:, :-2, 1:-1], padded[:, 2:, 1:-1])
    horizontal = extreme(padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
    return extreme(images, extreme(vertical, horizontal))


def _blurred(ink: Array, draws: Array) -> Array:
    passes = _LEAST_BLUR + np.floor(draws[:, 0] * (_MOST_BLUR + 1 - _LEAST_BLUR))
    for done in range(_MOST_BLUR):
        ink = np.where(_column(passes) > done, _binomial(ink), ink)
    return _grey(ink)


def _binomial(images: Array) -> Array:
    """Smooth with (1, 2, 1) / 4 along both axes: k passes approach a Gaussian of standard deviation sqrt(k / 2)."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    rows = 0.25 * (padded[:, :-2] + 2.0 * padded[:, 1:-1] + padded[:, 2:])
    return 0.25 * (rows[:, :, :-2] + 2.0 * rows[:, :, 1:-1] + rows[:, :, 2:])


def _occluded(ink: Array, draws: Array) -> Array:
    side = ink.shape[1]
    height, width = (np.floor(0.3 * side + 0.3 * side * draws[:, axis]) for axis in (0, 1))
    top = np.rint(0.2 * side + 0.6 * side * draws[:, 2] - height / 2)
    left = np.rint(0.2 * side + 0.6 * side * draws[:, 3] - width / 2)
    rows = np.arange(side, dtype=np.float64)[None, :, None]
    columns = rows.transpose(0, 2, 1)
    inside = (rows >= _column(top)) & (rows < _column(top + height))
    inside = inside & (columns >= _column(left)) & (columns < _column(left + width))
    return np.where(inside[..., None], draws[:, None, None, 4:7], _grey(ink))


DOMAINS: Mapping[str, Domain] = MappingProxyType(
    {
        "upright": Domain(_upright, 0, "bright ink on a dark ground, as it was scanned"),
        "rotated": Domain(_rotated, 2, "turned by 30 to 60 degrees either way and shrunk by a tenth"),
        "inverted": Domain(_inverted, 0, "dark ink on a bright ground"),
        "coloured": Domain(_coloured, 6, "ink and ground of two random colours whose luminance differs by 0.4 or more"),
        "textured": Domain(_textured, 6 + 3 * _TEXTURE_CELLS**2, "coloured ink on a blotched ground of random colours"),
        "stroke": Domain(_stroke, 1, "strokes thinned or thickened by one pixel a side"),
        "blurred": Domain(_blurred, 1, "blurred with a standard deviation of 1.2 to 1.7 pixels"),
        "occluded": Domain(_occluded, 7, "a coloured rectangle of 4 to 9 pixels a side over part of the digit"),
    }
)
"""Name to domain, in the order in which they are listed; `upright` is the source of all others."""


def render(name: str, ink: Array, sources: Sequence[str], *, revision: str) -> NDArray[np.uint8]:
    """Draw N sources in one domain.

    Args:
        name: a key of `DOMAINS`.
        ink: (N, S, S) in [0, 1].
        sources: N names; with `revision` and `name` they fix every draw.
        revision: content version of the dataset.

    Returns:
        (N, 3, S, S) uint8.
    """
    domain = DOMAINS[name]
    colours = domain.render(ink, uniform_draws(f"{revision}/{name}", sources, domain.draws))
    return np.ascontiguousarray(to_uint8(colours).transpose(0, 3, 1, 2))
