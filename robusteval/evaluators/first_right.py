"""The first correctly classified examples of an evaluation, for those who measure only a share of it.

A search model is measured on them and the masking checks look at them. Every share has to use those of the whole
evaluation, so that it searches with the same network and the checks say the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from robusteval.data.batches import Batch, DeviceSet
from robusteval.evaluators.masking import CHECKED
from robusteval.evaluators.model_checks import clean_logits
from robusteval.evaluators.views import Views
from robusteval.models.classifier import Classifier
from robusteval.models.form_building import PROBES

COUNT = max(CHECKED, PROBES)
"""As many as anybody looks at."""


@dataclass(frozen=True)
class FirstRight:
    """What a share has to know of the whole evaluation.

    Attributes:
        batches: the first correctly classified examples of each view in key order, at most `COUNT`.
    """

    batches: tuple[Batch, ...]

    def of(self, view: int, count: int) -> Batch:
        """At most `count` of those of one view."""
        batch = self.batches[view]
        return Batch(
            images=batch.images[:count],
            labels=batch.labels[:count],
            keys=batch.keys[:count],
            domains=batch.domains[:count],
        )


def find_first_right(views: Views) -> FirstRight:
    """Predict the examples of each view in key order until enough are right; their passes count nowhere.

    Args:
        views: a frozen model and all examples of the evaluation.

    Raises:
        CellError: the model raises, or answers with NaN; the examples are named.
    """
    return FirstRight(tuple(_first_of(views, view, model) for view, model in enumerate(views.models)))


def _first_of(views: Views, view: int, model: Classifier) -> Batch:
    before = model.passes.snapshot()
    members = np.flatnonzero(views.of == view)
    members = members[np.argsort(views.data.keys[members], kind="stable")]
    right: list[int] = []
    for start in range(0, len(members), 2 * COUNT):
        part = members[start : start + 2 * COUNT]
        examples = DeviceSet(views.data.take(part), model.device)
        batch = examples.batch(slice(None))
        classes = clean_logits(model, batch.images, examples.ids).argmax(dim=1)
        right += part[(classes == batch.labels).cpu().numpy()].tolist()
        if len(right) >= COUNT:
            break
    model.passes.forward = before.forward
    return DeviceSet(views.data.take(right[:COUNT]), model.device).batch(torch.arange(len(right[:COUNT])))
