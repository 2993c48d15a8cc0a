"""The model as the examples of each domain are to see it: among all classes, or among those that the domain has."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusteval.data.imageset import ImageSet
from robusteval.models.classifier import Classifier


class Views:
    """One classifier for each set of labels that a domain has, and the examples in the numbering of their own one.

    Args:
        model: the model, on its device.
        data: the examples.

    Attributes:
        models: one classifier a set of labels; `model` itself where every class counts.
        of: (N,) int64, which of them each example is for.
        data: the examples, labelled in the numbering of their classifier.
    """

    def __init__(self, model: Classifier, data: ImageSet) -> None:
        subsets = [data.subsets.get(domain) for domain, _ in data.domain_counts]
        self._labels = list(dict.fromkeys(subsets))
        self.models = [model if labels is None else model.restricted(labels) for labels in self._labels]
        place = {labels: index for index, labels in enumerate(self._labels)}
        self.of: NDArray[np.int64] = np.array([place[data.subsets.get(name)] for name in data.domains], dtype=np.int64)
        self.data = data if self._labels == [None] else replace(data, labels=self._renumbered(data), subsets={})

    def take(self, positions: NDArray[np.int64]) -> Views:
        """The same classifiers for the examples at `positions`, in that order."""
        some = copy.copy(self)
        some.of, some.data = self.of[positions], self.data.take(positions)
        return some

    @property
    def most_classes(self) -> int:
        """Classes of the classifier that has most."""
        return max(model.classes for model in self.models)

    def original(self, view: int, labels: Sequence[int]) -> list[int]:
        """Labels of one of the classifiers in the numbering of the data."""
        chosen = self._labels[view]
        return list(labels) if chosen is None else [chosen[label] for label in labels]

    def _renumbered(self, data: ImageSet) -> NDArray[np.int64]:
        labels = data.labels.copy()
        for view, chosen in enumerate(self._labels):
            if chosen is not None:
                here = self.of == view
                number = {label: index for index, label in enumerate(chosen)}
                labels[here] = [number[label] for label in data.labels[here].tolist()]
        return labels


def counted_classes(data: ImageSet, domains: Sequence[str], model: Classifier) -> Tensor | None:
    """Which classes count in each of some domains: (D, K) bool on the device of the model; None if all do in all."""
    if not any(domain in data.subsets for domain in domains):
        return None
    counted = torch.ones(len(domains), model.classes, dtype=torch.bool)
    for row, domain in enumerate(domains):
        if domain in data.subsets:
            counted[row] = False
            counted[row, list(data.subsets[domain])] = True
    return counted.to(model.device)
