"""Robust accuracy: the worst case per example over the attacks of a threat model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field, model_validator

from robusteval.attacks import ATTACKS
from robusteval.data.imageset import ImageSet
from robusteval.evaluators.adversarial_images import Keep
from robusteval.evaluators.adversarial_run import AdversarialRun
from robusteval.evaluators.adversarial_stages import Stage, plan_stages
from robusteval.evaluators.base import EvaluationContext, Evaluator
from robusteval.evaluators.first_right import FirstRight
from robusteval.evaluators.model_checks import check_devices
from robusteval.evaluators.pass_budget import within
from robusteval.evaluators.predictions import check_fit
from robusteval.evaluators.views import Views
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import UsageError
from robusteval.schema.params import LATER, checked_params
from robusteval.schema.records import Evaluation, Flag
from robusteval.schema.specs import ComponentSpec
from robusteval.schema.threats import Threat
from robusteval.schema.types import Component, Frozen, PositiveInt


class AdversarialParams(Frozen):
    """Parameters of the adversarial evaluator."""

    attacks: tuple[ComponentSpec, ...] = Field(default=(Component(name="pgd"),), min_length=1)
    """Attacks, in this order."""
    cascade: bool = True
    """Each attack only sees what the earlier ones left standing, and is reported as the accuracy after it. If false,
    every attack sees all correctly classified examples and is reported by itself; the robust accuracy is the same
    wherever an attack's verdict on an example does not depend on the others in its batch."""
    budget: Annotated[PositiveInt | None, LATER] = None
    """Forward and backward passes that one example may cost over all attacks; what does not fit is shortened or left
    out, in this order. Passes of the clean prediction, of verification and of the checks are not counted."""
    checks: bool = True
    """Look for symptoms of gradient masking on a few examples."""
    keep: Annotated[Keep, LATER] = "none"
    """Adversarial images to save: `none`, `float` (float32), or `uint8` where the rounded image fools the model too and
    `float` where not. Never changes an outcome; another choice is another cell all the same, and is attacked anew."""

    @model_validator(mode="after")
    def _one_sample(self) -> Self:
        if sum(component.params.get("mode") == "two-stage" for component in self.attacks) > 1:
            raise ValueError("two attacks with mode: two-stage leave two samples of survivors; keep one of them")
        return self


@dataclass(frozen=True)
class Asked:
    """What an adversarial evaluation is about.

    Attributes:
        threat: threat model.
        views: the model as the examples of each domain see it, and the examples.
        stages: the attacks.
        cuts: flags of what a budget has cut.
    """

    threat: Threat
    views: Views
    stages: tuple[Stage, ...]
    cuts: tuple[Flag, ...]


class AdversarialEvaluator(Evaluator[AdversarialParams]):
    """Run attacks on what the model gets right; an example is robust if it survives all of them.

    An example of a domain with fewer classes is predicted and attacked among those alone (`ImageSet.subsets`).

    Examples are taken in the order of their keys, so neither the order nor the batch size of the caller changes a
    result; attacks whose examples influence each other get batches of their own fixed size.

    Outcomes: `clean`; one per attack, and per member of an ensemble (`autoattack-reference/apgd-t`), true where the
    example still stands after it; `robust`. Metrics: `accuracy`, `robust_accuracy` (with domains, macro and worst) and
    `accuracy_after/<label>`, or `accuracy_under/<label>` without the cascade.

    A two-stage attack adds the outcomes `attacked/<label>`, true where a member of its second stage was run; where it
    was not, the outcome of the member is the one before it, so `robust` and `robust_accuracy` are upper bounds. The
    metrics `robust_accuracy_low` and `robust_accuracy_estimate` say how far they may be off, `second_stage_broken`
    what share of the checked survivors broke.
    """

    Params = AdversarialParams

    def evaluate(self, model: Classifier, data: ImageSet, context: EvaluationContext) -> Evaluation:
        """See `Evaluator.evaluate`.

        Raises:
            UsageError: the context has no threat model.
            CellError: the data does not fit, or the model or an attack broke its contract.
        """
        asked = self.asked(model, data, context)
        run = self.begin(asked, context)
        with model.frozen():
            run.predict_clean()
            for stage in asked.stages:
                run.attack(stage)
            flags = run.check(asked.threat) if self.params.checks else ()
        return run.evaluation((*flags, *asked.cuts))

    def asked(self, model: Classifier, data: ImageSet, context: EvaluationContext) -> Asked:
        """What is to be measured, checked before any pass is spent.

        Raises:
            UsageError: the context has no threat model, or an attack cannot work on the model.
            CellError: the data does not fit.
        """
        if context.threat is None:
            raise UsageError("the adversarial evaluator needs a threat model: a norm and an epsilon")
        check_fit(model, data)
        check_devices(model)
        views = Views(model, data)
        stages = plan_stages(self.params.attacks, context.threat, views.most_classes)
        cuts: tuple[Flag, ...] = ()
        if self.params.budget is not None:
            paid = within(self.params.budget, stages, views.most_classes)
            stages, cuts = paid.stages, paid.flags(self.params.budget)
        for stage in stages:
            for view in views.models:
                stage.attack.check_model(view)
        return Asked(context.threat, views, tuple(stages), cuts)

    def begin(self, asked: Asked, context: EvaluationContext, whole: FirstRight | None = None) -> AdversarialRun:
        """Start the measurement, or go on where an earlier attempt ended.

        Args:
            asked: what is measured.
            context: what surrounds it.
            whole: what is known of the whole evaluation, if these are the examples of a share.
        """
        return AdversarialRun(self.params, asked.views, context, asked.stages, protocol=self.protocol, whole=whole)

    @classmethod
    def passes(cls, params: AdversarialParams, classes: int) -> tuple[int, int]:
        """See `Evaluator.passes`."""
        forward, backward = 1, 0
        for component in params.attacks:
            attack = ATTACKS.load(component.name)
            chosen = checked_params(f"attack {component.name!r}", attack.Params, component.params)
            spent = attack.passes(chosen, classes)
            forward, backward = forward + spent[0], backward + spent[1]
        # Rounded images are predicted at most twice.
        forward += 2 if params.keep == "uint8" else 0
        if params.budget is not None and forward + backward > params.budget:
            backward = round(backward * params.budget / (forward + backward))
            forward = params.budget - backward
        return forward, backward
