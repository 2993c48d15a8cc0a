"""Clean accuracy, negative log-likelihood and calibration."""

from __future__ import annotations

from robusteval.data.imageset import ImageSet
from robusteval.evaluators.base import EvaluationContext, Evaluator
from robusteval.evaluators.predictions import (
    domain_accuracies,
    domain_calibration,
    likelihood_metrics,
    predict,
    undefined_flags,
)
from robusteval.models.classifier import Classifier
from robusteval.schema.records import Bits, Evaluation
from robusteval.schema.types import Frozen


class CleanParams(Frozen):
    """The clean evaluator has no parameters."""


class CleanEvaluator(Evaluator[CleanParams]):
    """Accuracy, `nll` and `ece` with 15 bins, accuracy and `ece` per domain too; one forward pass an example."""

    Params = CleanParams

    def evaluate(self, model: Classifier, data: ImageSet, context: EvaluationContext) -> Evaluation:
        """See `Evaluator.evaluate`."""
        predictions = predict(model, data, context)
        metrics = domain_accuracies("accuracy", predictions.correct, data) + likelihood_metrics(predictions)
        metrics += domain_calibration(predictions, data.domains)
        return Evaluation(
            metrics=tuple(metrics),
            outcomes={"clean": Bits.pack(predictions.correct)},
            domains=data.domain_counts,
            flags=undefined_flags(predictions),
            budget=predictions.budget,
        )
