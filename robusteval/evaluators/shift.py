"""Accuracy under distribution shift: the clean outcomes, read domain by domain."""

from __future__ import annotations

from robusteval.data.imageset import ImageSet
from robusteval.evaluators.base import EvaluationContext, Evaluator
from robusteval.evaluators.predictions import domain_accuracies, domain_calibration, predict, undefined_flags
from robusteval.models.classifier import Classifier
from robusteval.schema.records import Bits, Evaluation, Metric
from robusteval.schema.types import Frozen


class ShiftParams(Frozen):
    """The shift evaluator has no parameters."""


class ShiftEvaluator(Evaluator[ShiftParams]):
    """Accuracy and `ece` per domain, `accuracy` over all examples (micro), `accuracy_macro` and `accuracy_worst`.

    All of them are there for a single domain too, so that tables have the same columns whatever the slice.
    """

    Params = ShiftParams

    def evaluate(self, model: Classifier, data: ImageSet, context: EvaluationContext) -> Evaluation:
        """See `Evaluator.evaluate`."""
        predictions = predict(model, data, context)
        metrics = domain_accuracies("accuracy", predictions.correct, data)
        if len(metrics) == 1:
            metrics += _single_domain(metrics[0], data.domains[0])
        metrics += domain_calibration(predictions, data.domains)
        return Evaluation(
            metrics=tuple(metrics),
            outcomes={"clean": Bits.pack(predictions.correct)},
            domains=data.domain_counts,
            flags=undefined_flags(predictions),
            budget=predictions.budget,
        )


def _single_domain(accuracy: Metric, domain: str) -> list[Metric]:
    names = (f"accuracy/{domain}", "accuracy_macro", "accuracy_worst", f"accuracy_worst/{domain}")
    return [accuracy.model_copy(update={"name": name}) for name in names]
