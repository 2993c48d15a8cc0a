"""Evaluators: protocol-versioned code that turns a model and images into per-example outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robusteval.schema.registry import Registry

if TYPE_CHECKING:
    from robusteval.evaluators.base import Evaluator

EVALUATORS: Registry[type[Evaluator[Any]]] = Registry(
    "evaluator",
    {
        "clean": (
            "robusteval.evaluators.clean:CleanEvaluator",
            "accuracy, negative log-likelihood, calibration error",
        ),
        "adversarial": (
            "robusteval.evaluators.adversarial:AdversarialEvaluator",
            "worst case per example over the attacks of a threat model",
        ),
        "shift": (
            "robusteval.evaluators.shift:ShiftEvaluator",
            "clean accuracy per domain, macro, micro and worst",
        ),
    },
)
