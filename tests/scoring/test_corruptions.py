"""Corruption errors against sums worked out from their definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri

from robusteval.schema.types import Component
from robusteval.scoring.corruptions import ALEXNET, ALEXNET_CLEAN, corruption_errors, shows_imagenet
from robusteval.scoring.outcomes import Outcomes

EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
SIZE = 40


def outcomes(errors: dict[str, float], *, prefix: str = "", seeds: int = 1) -> Outcomes:
    """Domains in each of which the given share of 40 images is wrong; an image is a group over all domains."""
    right, domains, groups = [], [], []
    for domain, error in errors.items():
        wrong = round(error * SIZE)
        right += [False] * wrong + [True] * (SIZE - wrong)
        domains += [prefix + domain] * SIZE
        groups += [f"image {index}" for index in range(SIZE)]
    table = np.array([right] * seeds, dtype=bool)
    return Outcomes(tuple(range(seeds)), table, tuple(domains), tuple(groups), True, "0" * 64)


def errors_of(name: str) -> list[float]:
    place = list(ALEXNET).index(name)
    return [(place + severity) / SIZE for severity in range(1, 6)]


ERRORS = {f"{name}-{severity}": errors_of(name)[severity - 1] for name in ALEXNET for severity in range(1, 6)}
CLEAN = outcomes({"val": 0.05})


def test_the_table_is_alexnets() -> None:
    assert len(ALEXNET) == 15
    assert np.mean(list(ALEXNET.values())) == pytest.approx(0.7890, abs=5e-5)


def test_the_three_numbers_are_those_of_their_definition() -> None:
    found = corruption_errors(outcomes(ERRORS), CLEAN, imagenet=True)
    assert found is not None and found.alexnet is not None and found.relative is not None
    assert found.severities == (1, 2, 3, 4, 5)
    assert found.raw.value == pytest.approx(np.mean(list(ERRORS.values())))
    ce = [sum(errors_of(name)) / (5 * alexnet) for name, alexnet in ALEXNET.items()]
    assert found.alexnet.value == pytest.approx(np.mean(ce))
    relative = [
        sum(error - 0.05 for error in errors_of(name)) / (5 * (alexnet - ALEXNET_CLEAN))
        for name, alexnet in ALEXNET.items()
    ]
    assert found.relative.value == pytest.approx(np.mean(relative))


def test_validation_corruptions_never_enter() -> None:
    more = ERRORS | {f"{name}-{severity}": 1.0 for name in EXTRA for severity in range(1, 6)}
    assert (
        corruption_errors(outcomes(more), CLEAN, imagenet=True).raw.value  # type: ignore[union-attr]
        == corruption_errors(outcomes(ERRORS), CLEAN, imagenet=True).raw.value  # type: ignore[union-attr]
    )


def test_images_that_are_not_imagenets_stay_unnormalised() -> None:
    found = corruption_errors(outcomes(ERRORS), CLEAN, imagenet=False)
    assert found is not None
    assert (found.alexnet, found.relative) == (None, None)


def test_one_severity_has_a_raw_error_only() -> None:
    third = {name: error for name, error in ERRORS.items() if name.endswith("-3")}
    found = corruption_errors(outcomes(third, prefix="cifar10/"), CLEAN, imagenet=True)
    assert found is not None
    assert (found.severities, found.alexnet) == ((3,), None)


@pytest.mark.parametrize("gone", ["fog-2", "snow"])
def test_an_incomplete_set_has_no_mean(gone: str) -> None:
    rest = {name: error for name, error in ERRORS.items() if not name.startswith(gone)}
    assert corruption_errors(outcomes(rest), CLEAN, imagenet=True) is None


def test_other_domains_have_no_corruption_error() -> None:
    assert corruption_errors(outcomes({"sketch": 0.5, "photo": 0.25}), CLEAN, imagenet=True) is None
    assert corruption_errors(None, None, imagenet=True) is None


def test_the_interval_covers_the_true_mean_error() -> None:
    rng = np.random.default_rng(0)
    chance, covered, draws = 0.3, 0, 200
    limit = np.sqrt(2.0) * float(ndtri(chance))
    for _ in range(draws):
        hardness = rng.normal(size=(60, 1))
        wrong = rng.normal(size=(60, 15)) + hardness < limit
        domains = tuple(f"{name}-1" for name in ALEXNET for _ in range(60))
        groups = tuple(str(index) for _ in ALEXNET for index in range(60))
        one = Outcomes((0,), ~wrong.T.reshape(1, -1), domains, groups, True, "0" * 64)
        found = corruption_errors(one, None, imagenet=False)
        assert found is not None
        covered += found.raw.low <= chance <= found.raw.high
    assert covered / draws > 0.89


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (Component(name="imagenet-c"), True),
        (Component(name="cifar10-c"), False),
        (Component(name="shifted", params={"of": {"name": "cifar10"}, "shifts": []}), False),
        (
            Component(
                name="shifted",
                params={"of": {"name": "imagenet"}, "shifts": [{"name": "fog", "params": {"preset": "imagenet-c"}}]},
            ),
            True,
        ),
        (
            Component(
                name="shifted",
                params={"of": {"name": "imagenet"}, "shifts": [{"name": "fog", "params": {"preset": "cifar10-c"}}]},
            ),
            False,
        ),
    ],
)
def test_alexnets_errors_hold_for_its_own_constants_only(dataset: Component, expected: bool) -> None:
    assert shows_imagenet(dataset) is expected
