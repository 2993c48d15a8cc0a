"""Accuracy on the validation data of the training domains, clean and under a short attack."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from robusteval.attacks.geometry import random_start
from robusteval.attacks.gradient import ascend
from robusteval.data.batches import Batch, DeviceSet
from robusteval.methods.parallel import ALONE, Ranks
from robusteval.models.classifier import Classifier
from robusteval.schema.types import Norm

BATCH = 256
STEPS = 10


@torch.no_grad()
def clean_accuracy(model: Classifier, data: DeviceSet, ranks: Ranks = ALONE) -> float:
    """Fraction of `data` that the model gets right, in evaluation mode; one device sync."""
    correct = torch.zeros((), dtype=torch.int64, device=data.device)
    with model.mode(training=False):
        for batch in _own_batches(data, ranks):
            correct += (model(batch.images).argmax(dim=1) == batch.labels).sum()
    return int(ranks.sum_(correct).item()) / len(data)


def _own_batches(data: DeviceSet, ranks: Ranks) -> Iterator[Batch]:
    """Every so many batches in order, so that each is seen by one process and is the same however many there are."""
    for start in range(ranks.index * BATCH, len(data), ranks.count * BATCH):
        yield data.batch(slice(start, start + BATCH))


def robust_accuracy(
    model: Classifier, data: DeviceSet, *, norm: Norm, epsilon: float, seed: int, ranks: Ranks = ALONE
) -> float:
    """Fraction of `data` that the model gets right before and after 10 PGD steps of a quarter of the radius.

    The random start of an example is the same at every call with the same seed. A check to select by, no evaluation.

    Args:
        model: the classifier; mode, flags and gradients are unchanged afterwards.
        data: validation examples.
        norm: linf or l2.
        epsilon: radius in [0, 1] pixel units.
        seed: seed of the train cell.
        ranks: processes that share the work.
    """
    correct = torch.zeros((), dtype=torch.int64, device=data.device)
    with model.frozen():
        for batch in _own_batches(data, ranks):
            start = random_start(
                batch.images, batch.keys, norm=norm, epsilon=epsilon, seed=seed, purpose="validation/pgd"
            )
            worst = ascend(
                model,
                batch.images,
                batch.labels,
                norm=norm,
                epsilon=epsilon,
                step_size=epsilon / 4.0,
                steps=STEPS,
                start=start,
            )
            with torch.no_grad():
                right = model(batch.images).argmax(dim=1) == batch.labels
                right &= model(worst).argmax(dim=1) == batch.labels
            correct += right.sum()
    return int(ranks.sum_(correct).item()) / len(data)
