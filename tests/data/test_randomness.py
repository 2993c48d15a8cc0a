"""Keyed randomness: the published Philox, and independence of the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robusteval.data.randomness import keyed_normal, keyed_signs, keyed_uniform, keyed_words, philox4x32

KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
"""Counter, key and result of philox4x32-10 in the known-answer file of Random123."""
GENERATORS = [keyed_uniform, keyed_normal, keyed_signs]
KEYS = torch.tensor([3, 2**62 + 5, 0, 77, 2**63 - 1, 2**32], dtype=torch.int64)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    words = philox4x32(tuple(torch.tensor([word]) for word in counter), key)
    assert tuple(int(word) for word in words) == expected


@pytest.mark.parametrize("draw", GENERATORS)
@settings(max_examples=25, deadline=None)
@given(positions=st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_draws_do_not_depend_on_who_else_is_in_the_batch(draw: object, positions: list[int]) -> None:
    whole = draw(KEYS, (3, 4, 5), seed=1, purpose="noise")
    assert torch.equal(draw(KEYS[positions], (3, 4, 5), seed=1, purpose="noise"), whole[positions])


@pytest.mark.parametrize("draw", [keyed_uniform, keyed_normal])
def test_seed_purpose_and_key_each_change_the_draws(draw: object) -> None:
    base = draw(KEYS[:1], (8,), seed=1, purpose="noise")
    others = [
        draw(KEYS[:1], (8,), seed=2, purpose="noise"),
        draw(KEYS[:1], (8,), seed=1, purpose="start"),
        draw(KEYS[1:2], (8,), seed=1, purpose="noise"),
    ]
    assert not any(torch.equal(base, other) for other in others)


@settings(max_examples=25, deadline=None)
@given(few=st.integers(1, 40), more=st.integers(1, 40))
def test_a_longer_draw_begins_with_the_shorter_one(few: int, more: int) -> None:
    few, more = sorted((few, more))
    assert torch.equal(
        keyed_words(KEYS, more, seed=0, purpose="p")[:, :few], keyed_words(KEYS, few, seed=0, purpose="p")
    )


def test_working_through_many_blocks_in_parts_changes_nothing() -> None:
    together = keyed_words(KEYS, 40_000, seed=0, purpose="p")
    assert torch.equal(together[2:3], keyed_words(KEYS[2:3], 40_000, seed=0, purpose="p"))
    assert len(together.unique()) > 0.999 * together.numel()


def test_shapes_and_types_are_those_asked_for() -> None:
    for draw in GENERATORS:
        for shape in ((), (1,), (3, 5), (2, 0)):
            found = draw(KEYS, shape, seed=0, purpose="p")
            assert found.shape == (6, *shape)
            assert found.dtype == torch.float32


def test_uniform_draws_lie_in_the_half_open_interval_and_fit_the_distribution() -> None:
    draws = keyed_uniform(torch.arange(200), (500,), seed=0, purpose="p").double().numpy()
    assert draws.min() >= 0
    assert draws.max() < 1
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 0.001
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.02


def test_normal_draws_fit_the_distribution() -> None:
    draws = keyed_normal(torch.arange(200), (501,), seed=0, purpose="p").double().numpy()
    assert np.isfinite(draws).all()
    assert stats.kstest(draws.ravel(), "norm").pvalue > 0.001
    assert abs(np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]) < 0.02


def test_signs_are_fair() -> None:
    signs = keyed_signs(torch.arange(200), (500,), seed=0, purpose="p")
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 0.02


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("draw", GENERATORS)
def test_a_gpu_draws_the_same_numbers(draw: object) -> None:
    here = draw(KEYS, (100,), seed=0, purpose="p")
    assert torch.equal(draw(KEYS.cuda(), (100,), seed=0, purpose="p").cpu(), here)
