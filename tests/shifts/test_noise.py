from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from robusteval.schema.types import Component
from robusteval.shifts.base import build_shift
from robusteval.shifts.draws import Draws, as_numbers, look_up, normal_quantiles
from robusteval.shifts.tables import CONSTANTS

KEYS = torch.arange(12)


def grey(level: int) -> Tensor:
    return torch.full((12, 3, 64, 64), level, dtype=torch.uint8)


def noisy(name: str, level: int, severity: int = 3) -> np.ndarray:
    shift = build_shift(Component(name=name, params={"preset": "imagenet-c", "severity": severity}))
    return shift(grey(level), keys=KEYS, seed=0).numpy().ravel()


def expected_counts(probabilities: np.ndarray, n: int) -> np.ndarray:
    return probabilities / probabilities.sum() * n


def assert_follows(values: np.ndarray, probabilities: np.ndarray) -> None:
    """Chi-square over the levels that are expected at least ten times."""
    counts = np.bincount(values, minlength=256)
    expected = expected_counts(probabilities, len(values))
    often = expected >= 10
    assert counts[expected < 1e-6].sum() == 0  # with one possible level, this is all there is to say
    found = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], max(expected[~often].sum(), 1e-9))
    keep = wanted >= 5
    if keep.sum() == 1:
        return
    assert stats.chisquare(found[keep], wanted[keep] * found[keep].sum() / wanted[keep].sum()).pvalue > 1e-4


@pytest.mark.parametrize("level", [0, 100, 250])
def test_gaussian_noise_cuts_a_normal_number_to_whole_levels(level: int) -> None:
    deviation = 255 * CONSTANTS["imagenet-c"]["gaussian_noise"][2]
    edges = stats.norm.cdf(np.arange(257), loc=level, scale=deviation)
    probabilities = np.diff(edges)
    probabilities[0] += edges[0]
    probabilities[255] += 1 - edges[256]
    assert_follows(noisy("gaussian_noise", level), probabilities)


@pytest.mark.parametrize("level", [3, 100, 200])
def test_speckle_noise_grows_with_the_level(level: int) -> None:
    deviation = level * CONSTANTS["imagenet-c"]["speckle_noise"][2]
    edges = stats.norm.cdf(np.arange(257), loc=level, scale=deviation)
    probabilities = np.diff(edges)
    probabilities[0] += edges[0]
    probabilities[255] += 1 - edges[256]
    assert_follows(noisy("speckle_noise", level), probabilities)


@pytest.mark.parametrize(("preset", "severity"), [("imagenet-c", 1), ("imagenet-c", 5), ("cifar10-c", 1)])
@pytest.mark.parametrize("level", [0, 1, 100, 255])
def test_shot_noise_counts_photons(preset: str, severity: int, level: int) -> None:
    shift = build_shift(Component(name="shot_noise", params={"preset": preset, "severity": severity}))
    values = shift(grey(level), keys=KEYS, seed=0).numpy().ravel()
    rate = CONSTANTS[preset]["shot_noise"][severity - 1]
    counts = np.arange(1000)
    levels = np.minimum(np.floor(counts / rate * 255 + 1e-9), 255).astype(np.int64)
    probabilities = np.bincount(levels, weights=stats.poisson.pmf(counts, rate * level / 255), minlength=256)
    assert_follows(values, probabilities)


def test_impulse_noise_replaces_a_share_half_white_half_black() -> None:
    share = CONSTANTS["imagenet-c"]["impulse_noise"][2]
    values = noisy("impulse_noise", 100)
    probabilities = np.zeros(256)
    probabilities[[0, 100, 255]] = share / 2, 1 - share, share / 2
    assert_follows(values, probabilities)


def test_channels_and_pixels_get_noise_of_their_own() -> None:
    values = noisy("gaussian_noise", 128).reshape(12, 3, -1).astype(np.float64)
    between = np.corrcoef(values.reshape(36, -1)) - np.eye(36)
    assert np.abs(between).max() < 5 / 64
    shifted = np.corrcoef(values[:, :, 1:].ravel(), values[:, :, :-1].ravel())[0, 1]
    assert abs(shifted) < 5 / values.size**0.5


def test_normal_quantiles_have_the_moments_of_a_normal_number() -> None:
    quantiles = normal_quantiles()
    assert quantiles.mean() == pytest.approx(0.0, abs=1e-9)
    assert quantiles.std() == pytest.approx(1.0, abs=2e-4)
    assert stats.kstest(quantiles, "norm").statistic < 2**-16


def test_a_table_is_read_by_the_unsigned_value_of_a_pattern() -> None:
    table = torch.arange(65536, dtype=torch.int32)
    patterns = torch.tensor([[0, 1], [-1, -32768]], dtype=torch.int16)
    assert look_up(table, patterns).tolist() == [[0, 1], [65535, 32768]]
    assert as_numbers(patterns).tolist() == [[0, 1], [65535, 32768]]


def test_host_decisions_are_uniform_and_belong_to_the_key() -> None:
    numbers = Draws(torch.arange(2000), 0, "test").uniform(2, "decision")
    assert stats.kstest(numbers[:, 0], "uniform").pvalue > 1e-4
    alone = Draws(torch.tensor([7]), 0, "test").uniform(2, "decision")
    assert (alone == numbers[7]).all()
