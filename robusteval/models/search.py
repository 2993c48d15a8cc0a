"""The network as attacks search with it; verdicts never come from here.

A search may run on a faster form of the network. What it finds is verified with the original `Classifier` in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robusteval.models.classifier import Classifier

Loss = Callable[[Tensor], Tensor]
"""Maps logits (J, K) to one loss an example (J,)."""


class SearchModel:
    """Logits and input gradients of a frozen classifier, counted in its pass counter.

    Args:
        classifier: the original, in evaluation mode, without parameter gradients.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.classifier.classes

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Logits (J, K) float32 of images (J, C, H, W) in [0, 1]; one forward pass each."""
        return self.classifier(images).float()

    def gradient(self, images: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, loss of each example and its gradient; one forward and one backward pass each.

        Args:
            images: (J, C, H, W) in [0, 1].
            loss: maps logits to a loss per example.

        Returns:
            Logits (J, K) and losses (J,), both detached, and the gradient of each loss with respect to its image.
        """
        leaf = images.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = self.classifier(leaf).float()
            losses = loss(logits)
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        return logits.detach(), losses.detach(), gradient.float()
