"""Forms of a classifier that compute the same logits faster, built when first asked for.

A form is a frozen copy behind the same input contract, the same padding and the same pass counter.
"""

from __future__ import annotations

from collections import Counter

from torch import Tensor

from robusteval.models.classifier import MIN_BATCH, Classifier
from robusteval.models.form_building import PROBES, Measured, exact_form, fast_form
from robusteval.models.search_plan import Precision, SearchPlan
from robusteval.models.small_batches import least_batch

PATIENCE = 32
"""Batches that are padded for their gradients before it is measured whether a form can do without: the measurement
costs about as much."""

LOGIT_PATIENCE = 128
"""The same for logits alone, whose padding costs a third. Only attacks on scores ask so often."""


class Forms:
    """The forms of one classifier, built when first asked for.

    Args:
        classifier: the original, in evaluation mode, without parameter gradients.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._state = _state(classifier)
        self._exact: Measured | None = None
        self._fast: tuple[Classifier, SearchPlan] | None = None
        self._probes: Tensor | None = None
        self._small: Counter[tuple[Precision, bool]] = Counter()
        self._adapted: set[tuple[Precision, bool]] = set()

    def current(self) -> bool:
        """Whether the original still has the weights and buffers that the forms were built from."""
        return _state(self._classifier) == self._state

    def prepare(self, images: Tensor, precision: Precision) -> SearchPlan:
        """Build what `precision` needs, measured on the first of `images` (J, C, H, W), if not yet there.

        Without any image it is measured on a grey one.
        """
        if not len(images):
            images = images.new_full((1, *self._classifier.input_shape), 0.5)
        if self._exact is None:
            self._probes = images[:MIN_BATCH].detach().clone()
            self._exact = exact_form(self._classifier, images[:MIN_BATCH].detach())
        if precision == "fast" and self._fast is None:
            self._fast = fast_form(self._exact, images[:PROBES].detach())
        return self.plan(precision)

    def see_small(self, precision: Precision, *, gradient: bool) -> None:
        """Note one more batch that has to be padded, for its gradients or for logits alone."""
        self._small[precision, gradient] += 1

    def adapt(self) -> None:
        """Measure how small a batch may be, for each form that has padded so many that it is worth the passes."""
        if self._probes is None:
            return
        for (precision, gradient), seen in self._small.items():
            form = self.of(precision)
            due = seen >= (PATIENCE if gradient else LOGIT_PATIENCE) and (precision, gradient) not in self._adapted
            if not due or form is self._classifier:
                continue
            self._adapted.add((precision, gradient))
            least = least_batch(form, self._probes, gradient=gradient)
            if gradient:
                form.least_batch = least
            else:
                form.least_logit_batch = least

    def plan(self, precision: Precision) -> SearchPlan:
        """What was measured and decided.

        Raises:
            RuntimeError: `prepare` was not called.
        """
        return self._prepared(precision)[1]

    def of(self, precision: Precision) -> Classifier:
        """The form to compute with.

        Raises:
            RuntimeError: `prepare` was not called.
        """
        return self._prepared(precision)[0]

    def _prepared(self, precision: Precision) -> tuple[Classifier, SearchPlan]:
        if precision == "exact" and self._exact is not None:
            return self._exact.form, self._exact.plan
        if precision == "fast" and self._fast is not None:
            return self._fast
        raise RuntimeError(f"the {precision} form has not been measured; call prepare(images) first")


def _state(classifier: Classifier) -> tuple[tuple[int, int], ...]:
    tensors = (*classifier.parameters(), *classifier.buffers())
    return tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
