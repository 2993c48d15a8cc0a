"""Does a model get the input it expects? A few clean images, shown in every usual way, tell.

A wrong mean, a normalisation done twice, or pixels in [0, 1] for a network that wants [0, 255] costs accuracy silently,
and a model that is bad for such a reason often looks robust. So the declared preprocessing is compared with the usual
others on clean examples; if one of them is clearly better, the declaration is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robusteval.data.batches import DeviceSet
from robusteval.data.imageset import IMAGENET, ImageSet, Statistics
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import UsageError
from robusteval.stats.paired import mcnemar_exact

SHOWN = 128
"""Clean images that are looked at."""
_LEVEL = 1e-4
_GAIN = 0.2
"""How much more accurate another preprocessing must be, and how improbable by chance, before it is spoken of."""


class InputContractError(UsageError):
    """The model expects other input than was declared."""


@dataclass(frozen=True)
class _Way:
    """A usual way to show images: the network gets `(pixels - mean) / std`."""

    words: str
    advice: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def check_input_contract(model: Classifier, examples: ImageSet, usual: Statistics) -> None:
    """Refuse a model that is clearly more accurate with another preprocessing than the declared one.

    Args:
        model: the model with its declared preprocessing.
        examples: clean examples; the first 128 are shown.
        usual: mean and standard deviation of the dataset.

    Raises:
        InputContractError: another preprocessing is better by 20 points or more, beyond chance.
    """
    shown = examples.take(range(min(SHOWN, len(examples))))
    batch = next(iter(DeviceSet(shown, model.device).in_order(len(shown))))
    images, labels = batch.images, batch.labels
    before = model.passes.snapshot()
    with model.frozen(), torch.no_grad():
        declared = _right(model, images, labels, model.mean, model.std)
        for way in _ways(len(usual[0]), usual):
            mean, std = (torch.tensor(part, device=model.device).view(1, -1, 1, 1) for part in (way.mean, way.std))
            if torch.allclose(mean, model.mean, atol=1e-3) and torch.allclose(std, model.std, atol=1e-3):
                continue
            _compare(way, declared, _right(model, images, labels, mean, std))
    model.passes.forward = before.forward  # looking is no part of what measuring costs


def _right(model: Classifier, images: Tensor, labels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    logits = model.classify((images - mean) / std)
    right: Tensor = (logits.argmax(dim=1) == labels).cpu()
    return right


def _compare(way: _Way, declared: Tensor, other: Tensor) -> None:
    losses, gains = int((declared & ~other).sum()), int((other & ~declared).sum())
    n = len(declared)
    if gains - losses >= _GAIN * n and mcnemar_exact(losses, gains, "better") < _LEVEL:
        before, now = (100 * int(right.sum()) / n for right in (declared, other))
        raise InputContractError(
            f"the model gets {before:.0f} % of {n} clean images right with the declared preprocessing, and {now:.0f} % "
            f"{way.words}; {way.advice} (or pass check_input=False)"
        )


def _ways(channels: int, usual: Statistics) -> list[_Way]:
    zeros, ones, half = (0.0,) * channels, (1.0,) * channels, (0.5,) * channels
    ways = [
        _Way(
            "with pixels in [0, 1] as they are",
            "it seems to normalise by itself: leave mean, std and value_range out",
            zeros,
            ones,
        ),
        _Way("with pixels in [0, 255]", "declare value_range=(0, 255)", zeros, (1.0 / 255.0,) * channels),
        _Way("with pixels in [-1, 1]", "declare value_range=(-1, 1)", half, half),
        _Way(
            "with the mean and standard deviation of the dataset",
            f"declare mean={usual[0]} and std={usual[1]}",
            *usual,
        ),
    ]
    if channels == 3:
        words = "with the mean and standard deviation of ImageNet"
        ways.append(_Way(words, f"declare mean={IMAGENET[0]} and std={IMAGENET[1]}", *IMAGENET))
    return ways
