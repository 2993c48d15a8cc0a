"""Empirical risk minimisation: the mean cross-entropy on clean images."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from robusteval.data.batches import Batch
from robusteval.methods.base import Method, MethodParams
from robusteval.models.classifier import Classifier


class Params(MethodParams):
    """Hyper-parameters of empirical risk minimisation."""


class Erm(Method[Params]):
    """Minimise the mean cross-entropy on augmented clean images.

    Cost: 1 forward and backward pass per optimiser step.
    """

    Params = Params
    divides = True
    precisions = frozenset({"float32", "bfloat16"})

    def loss(self, model: Classifier, batch: Batch) -> Tensor:
        """Mean cross-entropy of the batch."""
        return cross_entropy(self.logits(model, batch.images), batch.labels)
