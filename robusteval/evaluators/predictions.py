"""Clean predictions of a model on an image set, and the numbers that summarise them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from robusteval.data.batches import RESIDENT_BYTES, DeviceSet
from robusteval.data.computed import ComputedImages
from robusteval.data.imageset import ImageSet
from robusteval.evaluators.base import EvaluationContext
from robusteval.evaluators.model_checks import check_memory, raising_on
from robusteval.evaluators.views import counted_classes
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import CellError
from robusteval.schema.records import Budget, Flag, Metric
from robusteval.stats.intervals import wilson

ECE_BINS = 15
"""Equal-width confidence bins of the calibration error (Guo et al., ICML 2017)."""


@dataclass(frozen=True)
class Predictions:
    """What a model says about N images, in their order.

    Attributes:
        correct: N booleans; a prediction with NaN logits is not correct.
        nll: (N,) float64, negative log-likelihood of the label.
        confidence: (N,) float64, largest softmax probability.
        undefined: number of images with NaN or infinite logits, left out of `nll` and `confidence` means.
        budget: passes spent.
    """

    correct: list[bool]
    nll: NDArray[np.float64]
    confidence: NDArray[np.float64]
    undefined: int
    budget: Budget


def check_fit(model: Classifier, data: ImageSet) -> None:
    """Refuse data the model cannot be measured on.

    Raises:
        CellError: no examples, another image shape, or labels the model does not have.
    """
    if not len(data):
        raise CellError("there are no examples to evaluate on; choose other domains or a larger number of examples")
    shape = tuple(data.images.shape[1:])
    if shape != tuple(model.input_shape):
        raise CellError(f"the images are {shape} and the model takes {tuple(model.input_shape)}")
    wrong = (data.labels >= model.classes).nonzero()[0]
    if len(wrong):
        raise CellError(
            f"the data has label {int(data.labels.max())} and the model only {model.classes} classes; example "
            f"{data.ids[wrong[0]]!r}"
            + (f" and {len(wrong) - 1} more have" if len(wrong) > 1 else " has")
            + " a label that the model does not know"
        )


def predict(model: Classifier, data: ImageSet, context: EvaluationContext) -> Predictions:
    """Predict every image once, in float32, among the classes that its domain has.

    Raises:
        CellError: the data does not fit the model, or the model raises or remembers what it was asked before.
    """
    check_fit(model, data)
    computed = isinstance(data.images, ComputedImages)
    device_set = DeviceSet(data, model.device, resident_bytes=0 if computed else RESIDENT_BYTES)
    before = model.passes.snapshot()
    counted = counted_classes(data, device_set.domain_names, model)
    correct: list[bool] = []
    nll: list[NDArray[np.float64]] = []
    confidence: list[NDArray[np.float64]] = []
    with model.frozen(), torch.no_grad():
        for batch in device_set.in_order(context.batch_size):
            names = data.ids[len(correct) : len(correct) + len(batch)]
            with raising_on(names):
                logits = model(batch.images).double()
            if not correct:
                check_memory(model, batch.images, names)
            finite = logits.isfinite().all(dim=1)
            if counted is not None:
                logits = logits.masked_fill(~counted[batch.domains], -math.inf)
            log_likelihood = logits.log_softmax(dim=1)
            defined = ~logits.isnan().any(dim=1)
            correct += ((logits.argmax(dim=1) == batch.labels) & defined).tolist()
            own = -log_likelihood.gather(1, batch.labels[:, None]).squeeze(1)
            nll.append(torch.where(finite, own, math.inf).cpu().numpy())
            confidence.append(log_likelihood.amax(dim=1).exp().cpu().numpy())
            context.progress(len(correct) / len(data), "clean accuracy")
    likelihoods = np.concatenate(nll)
    return Predictions(
        correct=correct,
        nll=likelihoods,
        confidence=np.concatenate(confidence),
        undefined=int((~np.isfinite(likelihoods)).sum()),
        budget=model.passes.since(before),
    )


def calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = ECE_BINS) -> float:
    """Expected calibration error: gap of accuracy and mean confidence per bin, weighted by the bin's share.

    Args:
        confidence: (N,) largest softmax probabilities.
        correct: (N,) whether the prediction was right.
        bins: number of bins of equal width; a bin contains its upper edge, as in the original definition.
    """
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = []
    for index in np.unique(place):
        inside = place == index
        gaps.append(abs(math.fsum(correct[inside].astype(float)) - math.fsum(confidence[inside])))
    return math.fsum(gaps) / len(confidence)


def accuracy_metric(name: str, outcomes: Sequence[bool]) -> Metric:
    """Share of true outcomes with its Wilson interval."""
    successes, n = sum(outcomes), len(outcomes)
    low, high = wilson(successes, n)
    return Metric(name=name, value=successes / n, low=low, high=high, n=n, interval="wilson")


def domain_accuracies(name: str, outcomes: Sequence[bool], data: ImageSet) -> list[Metric]:
    """`name` over all examples and, with several domains, `name/<domain>`, `name_macro` and `name_worst`.

    The macro average weighs domains alike; its interval adds the domains' Wilson half-widths in squares (Zou and
    Donner, 2008) and takes domains as independent. `name_worst` has a twin `name_worst/<domain>` that says which
    domain it is; its interval is that domain's own and not corrected for having been chosen.
    """
    metrics = [accuracy_metric(name, outcomes)]
    names = [domain for domain, _ in data.domain_counts]
    if len(names) < 2:
        return metrics
    own = []
    for domain in names:
        mine = [outcome for outcome, where in zip(outcomes, data.domains, strict=True) if where == domain]
        own.append(accuracy_metric(f"{name}/{domain}", mine))
    worst, where = min(zip(own, names, strict=True), key=lambda pair: (pair[0].value, pair[1]))
    metrics += [*own, _macro(f"{name}_macro", own)]
    metrics += [worst.model_copy(update={"name": label}) for label in (f"{name}_worst", f"{name}_worst/{where}")]
    return metrics


def _macro(name: str, parts: Sequence[Metric]) -> Metric:
    mean = math.fsum(part.value for part in parts) / len(parts)
    below = math.fsum((part.value - (part.low or 0.0)) ** 2 for part in parts)
    above = math.fsum(((1.0 if part.high is None else part.high) - part.value) ** 2 for part in parts)
    return Metric(
        name=name,
        value=mean,
        low=max(0.0, mean - math.sqrt(below) / len(parts)),
        high=min(1.0, mean + math.sqrt(above) / len(parts)),
        n=sum(part.n for part in parts),
        interval="square-and-add of wilson",
    )


def likelihood_metrics(predictions: Predictions) -> list[Metric]:
    """Mean negative log-likelihood and calibration error; absent if no image has finite logits."""
    defined = np.isfinite(predictions.nll)
    n = int(defined.sum())
    if not n:
        return []
    nll = Metric(name="nll", value=math.fsum(predictions.nll[defined]) / n, n=n, higher_is_better=False)
    return [nll, _calibration("ece", predictions, defined)]


def domain_calibration(predictions: Predictions, domains: Sequence[str]) -> list[Metric]:
    """`ece/<domain>` of every domain that has an image with finite logits; no part of a result's digest."""
    defined, names = np.isfinite(predictions.nll), np.asarray(domains, dtype=object)
    parts = {name: defined & (names == name) for name in dict.fromkeys(domains)}
    return [_calibration(f"ece/{name}", predictions, part) for name, part in parts.items() if part.any()]


def _calibration(name: str, predictions: Predictions, chosen: NDArray[np.bool_]) -> Metric:
    correct = np.asarray(predictions.correct)[chosen]
    value = calibration_error(predictions.confidence[chosen], correct)
    return Metric(name=name, value=value, n=len(correct), higher_is_better=False)


def undefined_flags(predictions: Predictions) -> tuple[Flag, ...]:
    """A flag if the model answered with NaN or infinite logits anywhere."""
    if not predictions.undefined:
        return ()
    return (
        Flag(
            code="nan-logits",
            severity="error",
            evidence=f"NaN or infinite logits on {predictions.undefined} of {len(predictions.correct)} images",
            next_step="make the model answer with finite logits on every image in [0, 1]",
        ),
    )
