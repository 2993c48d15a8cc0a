"""What both attack libraries need around them: a plain module to attack, fixed seeds, and silence."""

from __future__ import annotations

import contextlib
import io
import random
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from robusteval.models.classifier import Classifier
from robusteval.schema.errors import CellError, RobustevalError


class PlainModule(nn.Module):
    """A classifier as libraries expect one: images in [0, 1] to logits, in evaluation mode, passes counted.

    Args:
        classifier: what is attacked; normalisation is inside it already.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.training = classifier.training

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes), writable: libraries overwrite entries in place."""
        logits: Tensor = self.classifier(images)
        return logits if logits.requires_grad else logits.clone()


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch, numpy and `random` for code that draws from global generators; afterwards they are as before.

    Args:
        seed: below 2 ** 32; the generators of all devices in use are seeded with it.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


@contextlib.contextmanager
def foreign(attack: str) -> Iterator[None]:
    """Run a library's code: what it prints is dropped, what it raises becomes an error that names the attack.

    Raises:
        CellError: the library failed.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except RobustevalError:
        raise
    except Exception as error:
        raise CellError(f"attack {attack!r} failed inside its library: {type(error).__name__}: {error}") from error
