"""Where Square Attack looks next: windows, signs and patterns, drawn for each job by itself.

Square Attack (Andriushchenko, Croce, Flammarion and Hein, ECCV 2020, arXiv 1912.00049) proposes one window a query. A
job draws its windows from a counter-based generator at (seed, example key, run, query), so a run of few queries is the
beginning of a run of many, and no job depends on another. Drawing many queries at once makes a draw nearly free.

Unlike in the published code, whose batch shares each window and whose windows never reach the last row and column, a
window's corner is uniform over all places where the window fits, and height and width are separate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robusteval.data.randomness import philox4x32
from robusteval.schema.digest import stable_int
from robusteval.schema.types import Norm

AHEAD = 64
"""Queries drawn at once."""
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The share of the image that a window covers is halved after these proposals, counted from 0."""
TILES = 5
"""In l2 and l1 the start has this many tiles along each side, or a few more where the side is no multiple of it."""
_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Proposals:
    """The next queries of J jobs; leading dimensions (J, A), or (J,) for one query each.

    Attributes:
        windows: (..., 4) for linf, (..., 8) for l2 and l1, int64: top, left, bottom and right of each window; the last
            two are the first row and column outside. Empty for query 0, which asks about the start itself.
        signs: (..., C) bool, the sign of each channel.
        patterns: (...) int64 rank of the pattern in `WindowPlan.patterns`; read in l2 and l1 alone.
    """

    windows: Tensor
    signs: Tensor
    patterns: Tensor


def window_size(share: float, height: int, width: int, *, smallest: int = 1, odd: bool = False) -> tuple[int, int]:
    """Rows and columns of a window.

    A square of `share` of the image's pixels, rounded to whole pixels; in an image whose short side cannot hold it, the
    rectangle of that area that fills the short side.

    Args:
        share: share of the image, in (0, 1].
        height: rows of the image.
        width: columns of the image.
        smallest: least side, where the image has as much.
        odd: take the next odd side.
    """
    area = share * height * width
    side = max(round(math.sqrt(area)), smallest)
    if odd and side % 2 == 0:
        side += 1
    rows, columns = min(side, height), min(side, width)
    if rows < side:
        columns = min(max(side, round(area / rows)), width)
    elif columns < side:
        rows = min(max(side, round(area / columns)), height)
    return rows, columns


def pattern(height: int, width: int, norm: Norm) -> Tensor:
    """Two pyramids of opposite sign, one above the other, of length one in `norm` (l2 or l1).

    A pyramid falls with the Chebyshev distance k from its centre: it is the sum of (j + 1) ** -q over all j >= k that
    reach into the window, with q = 2 in l2 and q = 4 in l1. Both have the same length.

    Returns:
        (height, width) float32.
    """
    halves = [_pyramid(height // 2, width, norm), -_pyramid(height - height // 2, width, norm)]
    return _unit(torch.cat(halves), norm).float()


def _pyramid(height: int, width: int, norm: Norm) -> Tensor:
    rows, columns = torch.arange(height), torch.arange(width)
    distance = torch.maximum((rows - height // 2).abs()[:, None], (columns - width // 2).abs()[None, :])
    levels = torch.arange(1, max(height // 2, width // 2) + 2, dtype=torch.float64) ** (-2 if norm is Norm.L2 else -4)
    heights = levels.flip(0).cumsum(0).flip(0)
    return _unit(heights[distance], norm)


def _unit(values: Tensor, norm: Norm) -> Tensor:
    length = torch.linalg.vector_norm(values, ord=2 if norm is Norm.L2 else 1)
    return values / length if length > 0 else values


def window_sides(windows: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Rows (J, 1, H, 1) and columns (J, 1, 1, W) of windows (J, 4): float32, 1 inside and 0 outside."""
    top, left, bottom, right = windows[:, :, None].unbind(dim=1)
    rows, columns = torch.arange(height, device=windows.device), torch.arange(width, device=windows.device)
    inside_rows, inside_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return inside_rows.float()[:, None, :, None], inside_columns.float()[:, None, None, :]


def window_mask(windows: Tensor, height: int, width: int) -> Tensor:
    """(J, 1, H, W) float32, 1 inside the windows (J, 4) and 0 outside."""
    rows, columns = window_sides(windows, height, width)
    return rows * columns


class WindowPlan:
    """How windows on images of one shape are sized and drawn.

    Args:
        shape: (C, H, W) of the images.
        norm: the threat's norm.
        share: share of the image that the first windows cover.
        device: where the jobs live.
    """

    def __init__(self, shape: tuple[int, int, int], norm: Norm, share: float, device: torch.device) -> None:
        self.shape, self.norm, self.device = shape, norm, device
        channels, height, width = shape
        linf = norm is Norm.LINF
        sizes = [
            window_size(share / 2**halved, height, width, smallest=1 if linf else 3, odd=not linf)
            for halved in range(len(HALVINGS) + 1)
        ]
        self.sizes = torch.tensor([(0, 0), *sizes], device=device)
        self.ages = torch.tensor([0, *(proposal + 1 for proposal in HALVINGS)], device=device)
        self.limits = torch.tensor([height, width], device=device)
        self.windows = 1 if linf else 2
        self.blocks = _ceil(2 * self.windows + _ceil(channels + 1, 32), 4)
        self.tile = (max(1, height // TILES), max(1, width // TILES))
        self.grid = (height // self.tile[0], width // self.tile[1])
        starting = channels * width if linf else (channels + 1) * self.grid[0] * self.grid[1]
        self.start_bits = starting
        self.start_blocks = _ceil(starting, 128)
        self.patterns = torch.zeros(0) if linf else self._pattern_table(sizes)

    def _pattern_table(self, sizes: list[tuple[int, int]]) -> Tensor:
        _, height, width = self.shape
        table = torch.zeros(len(sizes) + 1, 2, height, width)
        for age, (rows, columns) in enumerate(sizes, start=1):
            table[age, 0, :rows, :columns] = pattern(rows, columns, self.norm)
            table[age, 1, :rows, :columns] = pattern(columns, rows, self.norm).T
        return table.flatten(0, 1).to(self.device)

    def begin(self, keys: Tensor, runs: Tensor, seed: int) -> tuple[Tensor, Proposals]:
        """Fair bits (J, `start_bits`) for the start, and the proposals of the first `AHEAD` queries."""
        blocks = torch.arange(self.start_blocks + AHEAD * self.blocks, device=self.device)[None, :]
        words = job_words(keys, runs, blocks, seed)
        bits = fair_bits(words[:, : 4 * self.start_blocks], self.start_bits)
        return bits, self._proposals(words[:, 4 * self.start_blocks :], torch.zeros_like(keys))

    def proposals(self, keys: Tensor, runs: Tensor, first: Tensor, seed: int) -> Proposals:
        """The proposals of queries `first` (J,) to `first + AHEAD - 1`."""
        blocks = torch.arange(AHEAD * self.blocks, device=self.device)
        blocks = self.start_blocks + first[:, None] * self.blocks + blocks
        return self._proposals(job_words(keys, runs, blocks, seed), first)

    def _proposals(self, words: Tensor, first: Tensor) -> Proposals:
        words = words.view(len(words), AHEAD, -1)
        ages = torch.bucketize(first[:, None] + torch.arange(AHEAD, device=self.device), self.ages)
        sizes = self.sizes[ages]
        room = self.limits - sizes + 1
        corners = [(words[..., 2 * which : 2 * which + 2] * room) >> 32 for which in range(self.windows)]
        windows = torch.cat([part for corner in corners for part in (corner, corner + sizes)], dim=-1)
        bits = fair_bits(words[..., 2 * self.windows :], self.shape[0] + 1)
        return Proposals(windows, bits[..., :-1], 2 * ages + bits[..., -1])

    def stripes(self, bits: Tensor) -> Tensor:
        """Signs (J, C, 1, W) of the vertical stripes that linf starts from."""
        channels, _, width = self.shape
        return bits.view(len(bits), channels, 1, width)

    def tiles(self, bits: Tensor) -> Tensor:
        """The perturbation (J, C, H, W) that l2 and l1 start from, before it is fitted into the ball.

        A grid of patterns, each turned or not and each channel with its sign. Where the tiles leave rows or columns
        over, the grid is centred.
        """
        (rows, columns), (tile_rows, tile_columns) = self.grid, self.tile
        channels, height, width = self.shape
        bits = bits.view(len(bits), channels + 1, rows, columns)
        upright = pattern(tile_rows, tile_columns, self.norm).to(self.device)
        turned = pattern(tile_columns, tile_rows, self.norm).T.to(self.device)
        shapes = torch.where(bits[:, -1:, :, None, :, None], turned[:, None, :], upright[:, None, :])
        signs = 2.0 * bits[:, :-1, :, None, :, None].float() - 1.0
        covered = (shapes * signs).reshape(len(bits), channels, rows * tile_rows, columns * tile_columns)
        top, left = (height - covered.shape[2]) // 2, (width - covered.shape[3]) // 2
        start = covered.new_zeros(len(bits), channels, height, width)
        start[:, :, top : top + covered.shape[2], left : left + covered.shape[3]] = covered
        return start


def placed_patterns(table: Tensor, ranks: Tensor, windows: Tensor) -> Tensor:
    """Patterns moved to their windows.

    Args:
        table: (R, H, W) patterns in the upper left corner.
        ranks: (J,) which pattern each job takes.
        windows: (J, 4) where it goes.

    Returns:
        (J, 1, H, W) float32; what stands outside the window is of no meaning.
    """
    _, height, width = table.shape
    rows = (torch.arange(height, device=table.device) - windows[:, 0:1]).clamp(0, height - 1) * width
    columns = (torch.arange(width, device=table.device) - windows[:, 1:2]).clamp(0, width - 1)
    where = (ranks[:, None] * (height * width) + rows)[:, :, None] + columns[:, None, :]
    return table.view(-1)[where][:, None]


def job_words(keys: Tensor, runs: Tensor, blocks: Tensor, seed: int) -> Tensor:
    """Random words of jobs at given places of their streams.

    Args:
        keys: (J,) int64 keys of the examples.
        runs: (J,) int64 runs, in [0, 2**32).
        blocks: (J, n) or (1, n) int64 places, four words each, in [0, 2**32).
        seed: evaluation seed.

    Returns:
        (J, 4 n) int64 in [0, 2**32), fixed by (seed, key, run, place).
    """
    stream = stable_int(seed, "attack/square", bits=64)
    low, high = (keys & _MASK)[:, None], ((keys >> 32) & _MASK)[:, None]
    words = philox4x32((blocks, runs[:, None], low, high), (stream & _MASK, stream >> 32))
    return torch.stack(words, dim=-1).flatten(1)


def fair_bits(words: Tensor, count: int) -> Tensor:
    """The first `count` bits of words (..., n) of 32 bits, as (..., count) bool."""
    needed = words[..., : _ceil(count, 32)]
    bits = (needed[..., None] >> torch.arange(32, device=words.device)) & 1
    return bits.flatten(-2)[..., :count].bool()


def _ceil(count: int, size: int) -> int:
    return -(-count // size)
