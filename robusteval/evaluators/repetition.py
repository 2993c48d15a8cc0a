"""Asking a model the same question again: what changes although neither the images nor the random numbers did?"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robusteval.models.classifier import Classifier

LOGIT_TOLERANCE = 1e-4
"""Difference of two logits, relative to the largest one, from which they count as different."""


@dataclass(frozen=True)
class Repetition:
    """What a model answers when it is asked again.

    Attributes:
        first: (B, K) logits.
        second: (B, K) logits of the next pass, with other random numbers.
        again: (B, K) logits of a later pass with the random numbers of the first, of two the one that differs more;
            None if the first two passes are equal.
    """

    first: Tensor
    second: Tensor
    again: Tensor | None

    @property
    def remembers(self) -> bool:
        """Whether the same images and random numbers get another answer."""
        return self.again is not None and relative_difference(self.first, self.again) > LOGIT_TOLERANCE


@torch.no_grad()
def ask_again(model: Classifier, first: Tensor, images: Tensor, draws: Draws) -> Repetition:
    """Repeat a pass over images, once if nothing changes and three times if something does.

    Args:
        model: the classifier, frozen.
        first: (B, K) what it just answered.
        images: (B, C, H, W), the same as for `first`.
        draws: random numbers of `first`.
    """
    second, again = model(images), None
    if relative_difference(first, second) > LOGIT_TOLERANCE:
        # Twice, an even and an odd number of passes after the first: what alternates is the same every other time.
        for _ in range(2):
            draws.restore()
            found = model(images)
            if again is None or relative_difference(first, found) > relative_difference(first, again):
                again = found
    return Repetition(first, second, again)


class Draws:
    """The state of every random number generator that a network may draw from, to draw the same numbers again.

    Args:
        device: where the network runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = [device] if device.type == "cuda" else []
        self._torch = torch.get_rng_state(), [torch.cuda.get_rng_state(place) for place in self._cuda]
        self._others = random.getstate(), np.random.get_state()

    def restore(self) -> None:
        """Put every generator back."""
        torch.set_rng_state(self._torch[0])
        for place, state in zip(self._cuda, self._torch[1], strict=True):
            torch.cuda.set_rng_state(state, place)
        random.setstate(self._others[0])
        np.random.set_state(self._others[1])


@contextmanager
def generators_kept(device: torch.device) -> Iterator[Draws]:
    """Whatever is drawn inside, all generators are as before on exit."""
    draws = Draws(device)
    try:
        yield draws
    finally:
        draws.restore()


def relative_difference(first: Tensor, second: Tensor) -> float:
    """Largest difference of two logits, as a share of the largest of `first`; NaN if one is undefined."""
    scale = first.abs().amax().clamp_min(1e-12)
    return float((first - second).abs().amax() / scale)
