"""Random numbers that belong to an example, not to its place in a batch.

Philox4x32-10 (Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3, SC 2011) maps a counter and
a key to four words of 32 bits. Here the key is a hash of (seed, purpose) and the counter is (block within the example,
key of the example). So a draw depends on seed, purpose, example and position within the example alone: batch size,
order, sharding, resume and device change nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robusteval.schema.digest import stable_int

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROUNDS = 10
_CACHED, _LAUNCHED = 2**14, 2**24
"""Blocks worked on at once: as many as stay in a processor's cache, and enough to fill an accelerator."""


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox4x32-10.

    Args:
        counter: four int64 tensors of shapes that broadcast, with values in [0, 2**32).
        key: two words in [0, 2**32).

    Returns:
        Four int64 tensors with values in [0, 2**32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The product of two 32-bit words may pass 2**63; int64 wraps, and the mask after the shift undoes the sign.
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((second >> 32) & _MASK) ^ c1 ^ k0,
            second & _MASK,
            ((first >> 32) & _MASK) ^ c3 ^ k1,
            first & _MASK,
        )
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    return c0, c1, c2, c3


def keyed_words(keys: Tensor, count: int, *, seed: int, purpose: str) -> Tensor:
    """Random words of 32 bits.

    Args:
        keys: (B,) int64, one an example, such as `Batch.keys`.
        count: words per example.
        seed: seed of the evaluation or training.
        purpose: what the words are for; each purpose has its own stream.

    Returns:
        (B, count) int64 in [0, 2**32), on the device of `keys`.
    """
    stream = stable_int(seed, purpose, bits=64)
    key = (stream & _MASK, stream >> 32)
    low, high = (keys & _MASK)[:, None], ((keys >> 32) & _MASK)[:, None]
    blocks = torch.arange(-(-count // 4), dtype=torch.int64, device=keys.device)[None, :]
    width = max(1, (_CACHED if keys.device.type == "cpu" else _LAUNCHED) // max(1, len(keys)))
    parts = [
        torch.stack(philox4x32((some, torch.zeros_like(some), low, high), key), dim=-1).flatten(1)
        for some in torch.split(blocks, width, dim=1)
    ]
    return torch.cat(parts, dim=1)[:, :count]


def keyed_uniform(keys: Tensor, shape: tuple[int, ...], *, seed: int, purpose: str) -> Tensor:
    """Uniform numbers in [0, 1), multiples of 2**-24.

    Args:
        keys: (B,) int64, one an example.
        shape: shape of what one example gets.
        seed: seed of the evaluation or training.
        purpose: what the numbers are for.

    Returns:
        (B, *shape) float32, bit for bit the same on every device.
    """
    words = keyed_words(keys, math.prod(shape), seed=seed, purpose=purpose)
    return (words >> 8).to(torch.float32).mul_(2.0**-24).reshape(len(keys), *shape)


def keyed_signs(keys: Tensor, shape: tuple[int, ...], *, seed: int, purpose: str) -> Tensor:
    """Fair signs, -1 or 1: (B, *shape) float32; arguments as for `keyed_uniform`."""
    words = keyed_words(keys, math.prod(shape), seed=seed, purpose=purpose)
    return (words >> 31).to(torch.float32).mul_(2.0).sub_(1.0).reshape(len(keys), *shape)


def keyed_normal(keys: Tensor, shape: tuple[int, ...], *, seed: int, purpose: str) -> Tensor:
    """Standard normal numbers (Box and Muller, 1958): (B, *shape) float32; arguments as for `keyed_uniform`.

    Logarithm and cosine are taken in double precision and rounded once, so that devices whose functions differ in the
    last bits still agree.
    """
    count = math.prod(shape)
    words = keyed_words(keys, 2 * -(-count // 2), seed=seed, purpose=purpose).to(torch.float64)
    radius = torch.sqrt(-2.0 * torch.log((words[:, 0::2] + 1.0) * 2.0**-32))
    angle = words[:, 1::2] * (2.0 * math.pi * 2.0**-32)
    pairs = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1).flatten(1)
    return pairs[:, :count].to(torch.float32).reshape(len(keys), *shape)
