"""Errors over the 15 common corruptions: raw, divided by AlexNet's, and relative to the clean error.

Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261. The four validation corruptions never enter. There is no AlexNet
table for CIFAR, whose error stays raw.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from scipy.special import ndtri

from robusteval.schema.types import Component
from robusteval.scoring.outcomes import CONFIDENCE, Outcomes
from robusteval.scoring.results import CorruptionErrors, Difference

ALEXNET: Mapping[str, float] = MappingProxyType(
    {
        "gaussian_noise": 0.886428,
        "shot_noise": 0.894468,
        "impulse_noise": 0.922640,
        "defocus_blur": 0.819880,
        "glass_blur": 0.826268,
        "motion_blur": 0.785948,
        "zoom_blur": 0.798360,
        "snow": 0.866816,
        "frost": 0.826572,
        "fog": 0.819324,
        "brightness": 0.564592,
        "contrast": 0.853204,
        "elastic_transform": 0.646056,
        "pixelate": 0.717840,
        "jpeg_compression": 0.606500,
    }
)
"""Mean error of torchvision's AlexNet over the five severities of each corruption of ImageNet-C."""
ALEXNET_CLEAN = 0.4348
"""Its error on the clean validation images."""
_ALL = (1, 2, 3, 4, 5)
_DOMAIN = re.compile(r"(?:^|/)([a-z_]+)-([1-5])$")


def corruption_errors(shifted: Outcomes | None, clean: Outcomes | None, *, imagenet: bool) -> CorruptionErrors | None:
    """Mean corruption errors of one row.

    Args:
        shifted: clean accuracy under shift, a domain for each corruption and severity, such as `fog-3`.
        clean: clean accuracy in distribution.
        imagenet: whether the images are ImageNet's, so that AlexNet's errors on them are known.

    Returns:
        None unless each of the 15 corruptions was measured at the same severities.
    """
    if shifted is None:
        return None
    cells = _cells(shifted.domains)
    severities = {tuple(sorted(severity for name, severity in cells if name == one)) for one in ALEXNET}
    if len(severities) != 1 or not (found := next(iter(severities))):
        return None
    raw = _weighted(shifted, cells, dict.fromkeys(ALEXNET, 1.0 / len(ALEXNET)))
    if not imagenet or found != _ALL:
        return CorruptionErrors(severities=found, raw=raw)
    mce = _weighted(shifted, cells, {name: 1.0 / (len(ALEXNET) * error) for name, error in ALEXNET.items()})
    added = {name: 1.0 / (len(ALEXNET) * (error - ALEXNET_CLEAN)) for name, error in ALEXNET.items()}
    relative = None if clean is None else _weighted(shifted, cells, added, clean)
    return CorruptionErrors(severities=found, raw=raw, alexnet=mce, relative=relative)


def shows_imagenet(dataset: Component) -> bool:
    """Whether a dataset is ImageNet under its own constants of the corruptions, published or computed."""
    of = dataset.params.get("of")
    if dataset.name != "shifted" or not isinstance(of, dict):
        return dataset.name == "imagenet-c"
    presets = {shift["params"].get("preset") for shift in dataset.params.get("shifts", ())}
    return of.get("name") == "imagenet" and presets == {"imagenet-c"}


def _cells(domains: Sequence[str]) -> dict[tuple[str, int], list[str]]:
    """Corruption and severity to the domains that show it; of several clean domains each has its own."""
    cells: dict[tuple[str, int], list[str]] = {}
    for domain in dict.fromkeys(domains):
        match = _DOMAIN.search(domain)
        if match is not None and match[1] in ALEXNET:
            cells.setdefault((match[1], int(match[2])), []).append(domain)
    return cells


def _weighted(
    shifted: Outcomes,
    cells: Mapping[tuple[str, int], Sequence[str]],
    weights: Mapping[str, float],
    clean: Outcomes | None = None,
) -> Difference:
    """Sum over corruptions of weight times mean error, less the clean error where it is given.

    The variance is that of the sum when whole groups of examples are drawn: the copies of one image under all
    corruptions stay together, and with its clean copy if that has the same group.
    """
    names = np.asarray(shifted.domains, dtype=object)
    error = 1.0 - shifted.right.mean(axis=0)
    coefficients = np.zeros(len(names))
    per_corruption = len(cells) / len(weights)
    for (name, _), domains in cells.items():
        for domain in domains:
            here = names == domain
            coefficients[here] = weights[name] / (per_corruption * len(domains) * here.sum())
    value = float(coefficients @ error)
    influence: dict[str, float] = {}
    for domain in {domain for domains in cells.values() for domain in domains}:
        here = np.flatnonzero(names == domain)
        for index, part in zip(here, coefficients[here] * (error[here] - error[here].mean()), strict=True):
            influence[shifted.groups[index]] = influence.get(shifted.groups[index], 0.0) + float(part)
    if clean is not None:
        base = clean.mean()
        total = sum(weights.values())
        value -= total * (1.0 - base.value)
        for group, part in base.influence.items():
            influence[group] = influence.get(group, 0.0) + total * part
    count = len(influence)
    scale = count / (count - 1) if count > 1 else math.inf
    half = float(ndtri((1.0 + CONFIDENCE) / 2.0)) * math.sqrt(scale * sum(part * part for part in influence.values()))
    low = value - half if math.isfinite(half) else 0.0
    high = value + half if math.isfinite(half) else sum(weights.values())
    n = int(np.count_nonzero(coefficients))
    return Difference(value=value, low=low, high=high, n=n, interval="linear-clustered")
