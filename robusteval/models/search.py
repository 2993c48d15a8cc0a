"""The network as attacks search with it; verdicts never come from here.

A search may run on a faster form of the network: a copy with batch norm folded into the convolutions, in the memory
layout that suits the device, and in `fast` precision with bfloat16 weights and activations. What a search finds is
verified with the original `Classifier` in float32, so a form can only cost strength, never honesty; how much it differs
from the original is measured before it is used, and stands in the `SearchPlan`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from robusteval.models.classifier import MIN_BATCH, Classifier
from robusteval.models.forms import Forms
from robusteval.models.search_plan import Precision, SearchPlan

Loss = Callable[[Tensor], Tensor]
"""Maps logits (J, K) to one loss an example (J,)."""

CACHED = 64
"""Images in one forward pass on a CPU in float32: what a small network computes about more of them leaves the cache of
a core. Numbers of half the size allow twice as many."""

Losses = Callable[[Tensor], Tensor]
"""Maps logits (J, K) to several losses an example (J, M)."""


class SearchModel:
    """Logits and input gradients of a frozen classifier, counted in its pass counter.

    The forms are built and measured on the first images seen, or on those given to `prepare`. `precision` is what the
    attack wants; `plan.precision` is what it got, with the reason. Everything returned is float32.

    An attack that needs float32 whatever the user chose asks `search.at("exact")`, which shares the copies. An attack
    that screens candidates in low precision and decides close calls in float32 uses `low_logits`, `exact_logits` and
    `low_error`; where there is no low precision, the two are the same and the error is 0.

    The same image gets bitwise the same logits and gradients in every batch and place of one form, on one CPU thread.

    Args:
        classifier: the original, in evaluation mode, without parameter gradients. It is never changed; the copies are
            freed with the search model.
        precision: `exact` searches in float32; `fast` in bfloat16 where the device computes with it and the self-test
            finds the gradients good enough, else in float32.
    """

    def __init__(self, classifier: Classifier, precision: Precision = "exact") -> None:
        self.classifier = classifier
        self.precision: Precision = precision
        self._forms = Forms(classifier)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.classifier.classes

    def at(self, precision: Precision) -> SearchModel:
        """The same network in another precision; copies and measurements are shared."""
        if precision == self.precision:
            return self
        other = SearchModel.__new__(SearchModel)
        other.classifier, other.precision, other._forms = self.classifier, precision, self._forms
        return other

    def prepare(self, images: Tensor) -> SearchPlan:
        """Build and measure the forms on `images` (J, C, H, W) in [0, 1], unless that has been done.

        Costs up to 16 images three forward passes, and for `fast` up to 32 images two forward and two backward passes;
        on a CPU one more forward pass of one image for each precision.
        For verdicts that do not depend on the batch size, give the same images whatever the batch size.
        """
        return self._forms.prepare(images, self.precision)

    def adapt(self) -> None:
        """Pad less from now on, if batches have often been too small and a measurement allows it.

        Costs up to 98 passes forward and as many back now and then, which are nobody's: to be called between steps.
        """
        self._forms.adapt()

    @property
    def plan(self) -> SearchPlan:
        """What the search runs on and how far it is from the original.

        Raises:
            RuntimeError: nothing has been prepared yet.
        """
        return self._forms.plan(self.precision)

    @property
    def low_error(self) -> float:
        """Root mean square error of a `low_logits` logit against `exact_logits`, on the first images; 0 without it.

        Raises:
            RuntimeError: nothing has been prepared yet.
        """
        return self.plan.low_error

    @property
    def packing(self) -> int:
        """How many images fit where one does in float32.

        Raises:
            RuntimeError: nothing has been prepared yet.
        """
        return 2 if self.plan.precision == "fast" else 1

    @property
    def uncertainty(self) -> float:
        """Margin in logits within which low precision cannot tell the side of the boundary; 0 in float32.

        Three standard deviations of the difference of two logits, each of which errs by `low_error`. Measured for
        `apgd-ce` on 1,096 survivors of an adversarially trained ResNet-20: float32 broke 5 of the 43 within this
        margin, all of them within 1.1 standard deviations, and none of the 8 beyond it, up to 4.

        Raises:
            RuntimeError: nothing has been prepared yet.
        """
        return 3.0 * math.sqrt(2.0) * self.low_error

    def fits(self, classifier: Classifier) -> bool:
        """Whether this is a search model of `classifier` with the weights and buffers that it has now."""
        return self.classifier is classifier and self._forms.current()

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Logits (J, K) of images (J, C, H, W) in [0, 1]; one forward pass each."""
        form = self._form(images)
        on_cpu = len(images) and images.device.type == "cpu"
        size = CACHED * self.packing if on_cpu else max(1, len(images))
        if 0 < len(images) % size < MIN_BATCH:
            self._forms.see_small(self.precision, gradient=False)
        return torch.cat([form(part).float() for part in torch.split(images, size)])

    @torch.no_grad()
    def exact_logits(self, images: Tensor) -> Tensor:
        """Logits (J, K) in float32, whatever the precision; one forward pass each."""
        return self.at("exact").logits(images)

    @torch.no_grad()
    def low_logits(self, images: Tensor) -> Tensor:
        """Logits (J, K) as cheap as the precision allows: the same as `logits`; one forward pass each."""
        return self.logits(images)

    def gradient(self, images: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, loss of each example and its gradient; one forward and one backward pass each.

        Args:
            images: (J, C, H, W) in [0, 1].
            loss: maps logits to a loss per example.

        Returns:
            Logits (J, K) and losses (J,), both detached, and the gradient (J, C, H, W) of each loss with respect to its
            image.
        """
        form = self._form(images)
        if 0 < len(images) < MIN_BATCH:
            self._forms.see_small(self.precision, gradient=True)
        leaf = images.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = form(leaf).float()
            losses = loss(logits)
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        return logits.detach(), losses.detach(), gradient.float().contiguous()

    def gradients(self, images: Tensor, losses: Losses) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, M losses of each example and their gradients; one forward and M backward passes each.

        Args:
            images: (J, C, H, W) in [0, 1].
            losses: maps logits to M losses an example, such as the distances to M decision boundaries.

        Returns:
            Logits (J, K) and losses (J, M), both detached, and the gradients (J, M, C, H, W).
        """
        logits, values, each = self.each_gradient(images, losses)
        return logits, values, torch.stack(list(each), dim=1)

    def each_gradient(self, images: Tensor, losses: Losses) -> tuple[Tensor, Tensor, Iterator[Tensor]]:
        """The same as `gradients`, with one gradient in memory at a time.

        Returns:
            Logits (J, K) and losses (J, M), both detached, and the M gradients (J, C, H, W) in turn. Each costs its
            backward pass when it is asked for.
        """
        form = self._form(images)
        leaf = images.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = form(leaf).float()
            values = losses(logits)
            totals = values.sum(dim=0).unbind()

        def each() -> Iterator[Tensor]:
            for position, total in enumerate(totals, start=1):
                (gradient,) = torch.autograd.grad(total, leaf, retain_graph=position < len(totals))
                yield gradient.float().contiguous()

        return logits.detach(), values.detach(), each()

    def _form(self, images: Tensor) -> Classifier:
        if not len(images):
            return self.classifier
        self.prepare(images)
        return self._forms.of(self.precision)
