"""Random bits that belong to an example, fast enough to fill images with noise.

Philox4x64-10 (Salmon, Moraes, Dror and Shaw, SC 2011) has a key of two words; here they are a hash of (seed, purpose)
and the key of the example, and the counter numbers the blocks within the example. On a CPU the words come from NumPy's
`Philox`, whose raw output is promised to stay what it is; elsewhere the same words are computed in 64-bit integers,
so that every device draws the same bits. `data.randomness` is its sibling of 32 bits, for draws of few numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robusteval.schema.digest import stable_int

_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_KEY_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_LOW = 0xFFFFFFFF
_ROUNDS = 10
_WORDS = 4
"""Words of 64 bits in a block."""


def keyed_halfwords(keys: Tensor, count: int, *, seed: int, purpose: str) -> Tensor:
    """Random patterns of 16 bits.

    Args:
        keys: (B,) int64, one an example, such as `Batch.keys`.
        count: patterns per example.
        seed: seed of the evaluation.
        purpose: what they are for; each purpose has its own stream.

    Returns:
        (B, count) int16 on the device of `keys`, all 65536 patterns equally likely.
    """
    words = -(-count // 4)
    stream = stable_int(seed, purpose, bits=64)
    found = _numpy_words(keys, words, stream) if keys.device.type == "cpu" else device_words(keys, words, stream)
    return found.view(torch.int16)[:, :count]


def _numpy_words(keys: Tensor, words: int, stream: int) -> Tensor:
    found = np.empty((len(keys), words), dtype=np.uint64)
    generator = np.random.Philox(key=stream)
    state = generator.state
    for row, key in enumerate(keys.tolist()):
        state["state"]["key"][1] = key & (2**64 - 1)
        generator.state = state
        found[row] = generator.random_raw(words)
    return torch.from_numpy(found.view(np.int64))


def device_words(keys: Tensor, words: int, stream: int) -> Tensor:
    """The words of NumPy's `Philox(key=(stream, key))`: (B, words) int64 bit patterns, computed where `keys` are."""
    # NumPy raises the counter before it draws, so the first block is number 1.
    counter = torch.arange(1, 1 - (-words // _WORDS), dtype=torch.int64, device=keys.device)[None, :]
    c0, c1, c2, c3 = counter, torch.zeros_like(counter), torch.zeros_like(counter), torch.zeros_like(counter)
    k0, k1 = torch.full_like(keys, _signed(stream))[:, None], keys[:, None]
    for _ in range(_ROUNDS):
        low0, high0 = _product(c0, _MULTIPLIERS[0])
        low1, high1 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + _signed(_KEY_STEPS[0]), k1 + _signed(_KEY_STEPS[1])
    blocks = [part.expand(len(keys), counter.shape[1]) for part in (c0, c1, c2, c3)]
    return torch.stack(blocks, dim=-1).flatten(1)[:, :words].contiguous()


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned word."""
    return word - 2**64 if word >= 2**63 else word


def _high(word: Tensor) -> Tensor:
    return (word >> 32) & _LOW


def _product(word: Tensor, constant: int) -> tuple[Tensor, Tensor]:
    """Low and high word of an unsigned product of 64 by 64 bits, with int64 that wraps."""
    low, high = word & _LOW, _high(word)
    constant_low, constant_high = constant & _LOW, constant >> 32
    cross, other = low * constant_high, high * constant_low
    middle = _high(low * constant_low) + (cross & _LOW) + (other & _LOW)
    return word * _signed(constant), high * constant_high + _high(cross) + _high(other) + _high(middle)
