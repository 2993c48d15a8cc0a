"""Bits keyed by example: the same words on every device, the same example wherever it stands."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from robusteval.data.keyed_bits import device_words, keyed_halfwords
from robusteval.schema.digest import stable_int

KEYS = torch.tensor([0, 1, -5, 2**62 + 3, -(2**63)])


@given(st.integers(0, 2**64 - 1), st.integers(1, 40))
def test_words_computed_on_a_device_are_those_of_numpy(stream: int, words: int) -> None:
    found = device_words(KEYS, words, stream)
    for key, row in zip(KEYS.tolist(), found, strict=True):
        generator = np.random.Philox(key=np.array([stream, key % 2**64], dtype=np.uint64))
        assert (row.numpy().view(np.uint64) == generator.random_raw(words)).all()


def test_the_first_block_is_the_published_answer_of_philox() -> None:
    """Key and counter of zeros, from the known answers of Random123 (kat_vectors: philox4x64, 10 rounds)."""
    generator = np.random.Philox(key=0, counter=np.array([2**64 - 1] * 4, dtype=np.uint64))
    published = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert generator.random_raw(4).tolist() == published


def test_halfwords_on_the_cpu_are_those_of_the_device_path() -> None:
    stream = stable_int(7, "fog", bits=64)
    expected = device_words(KEYS, 5, stream).view(torch.int16)[:, :18]
    assert torch.equal(keyed_halfwords(KEYS, 18, seed=7, purpose="fog"), expected)


def test_halfwords_do_not_depend_on_the_other_examples() -> None:
    together = keyed_halfwords(KEYS, 33, seed=1, purpose="noise")
    alone = torch.cat([keyed_halfwords(KEYS[i : i + 1], 33, seed=1, purpose="noise") for i in range(len(KEYS))])
    assert torch.equal(together, alone)


def test_another_seed_or_purpose_gives_other_bits() -> None:
    base = keyed_halfwords(KEYS, 64, seed=1, purpose="noise")
    assert not torch.equal(base, keyed_halfwords(KEYS, 64, seed=2, purpose="noise"))
    assert not torch.equal(base, keyed_halfwords(KEYS, 64, seed=1, purpose="angle"))


def test_halfwords_are_uniform_and_uncorrelated_between_examples() -> None:
    keys = torch.arange(64)
    values = keyed_halfwords(keys, 4096, seed=0, purpose="noise").to(torch.float64) / 2**15
    assert abs(float(values.mean())) < 4 / (3 * values.numel()) ** 0.5
    assert abs(float(values.square().mean()) - 1 / 3) < 4 * (4 / 45 / values.numel()) ** 0.5
    correlations = torch.corrcoef(values) - torch.eye(64)
    assert float(correlations.abs().max()) < 5 / 4096**0.5
