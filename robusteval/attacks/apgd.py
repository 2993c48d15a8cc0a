"""Auto-PGD (Croce and Hein, ICML 2020, arXiv 2003.01690; in l1: ICML 2021, arXiv 2103.01208) as jobs.

Gradient ascent that sets its own step: long steps first, halved and restarted from the best point when the loss stops
rising. `apgd-ce` raises the cross-entropy, `apgd-dlr` the difference of logits ratio, `apgd-t` its targeted form, in a
run for each of the most likely wrong classes; success is any misclassification.

Deviations from the authors' code: a run ends at its first verified success, the gradient of a run's last iterate is not
computed, and noise belongs to (seed, example, attack, run), not to a position in a batch. In l1 a pixel that differs
from its clean value by the rounding of a projection alone does not count as changed; on 300 digits and a CNN (CE, mean
of 5 seeds) that broke 159.8 instead of 161.0 in shrinking balls, and 155.8 instead of 155.4 in one
ball.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any, Generic, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from robusteval.attacks.apgd_ascent import Ascent, InertialAscent, SparseAscent
from robusteval.attacks.apgd_schedule import schedule
from robusteval.attacks.gradient import negative_margin
from robusteval.attacks.jobs import NEAR, STUCK, UNDEFINED, JobAttack, Jobs, State, Step, target_classes
from robusteval.attacks.losses import cross_entropy, targeted_objective, untargeted_dlr_objective
from robusteval.data.randomness import keyed_normal, keyed_uniform
from robusteval.models.search import SearchModel
from robusteval.models.search_plan import Precision
from robusteval.schema.errors import UsageError
from robusteval.schema.types import Frozen, Norm, PositiveInt, ThreatModel

PUBLISHED_TARGETS, PUBLISHED_TARGETS_L1 = 9, 5
PUBLISHED_RESTARTS_L1 = 5


class ApgdParams(Frozen):
    """Hyper-parameters of every APGD; the defaults are those of AutoAttack `standard`."""

    steps: PositiveInt = 100
    """Iterations of a run, over all phases."""
    rho: float = Field(default=0.75, ge=0, le=1)
    """linf and l2: the step is halved if no more than this share of the iterations since the last check raised the
    loss."""
    eot_iter: PositiveInt = 1
    """Passes over which the gradient is averaged, for randomised models; AutoAttack `rand` takes 20."""
    precision: Precision = "exact"
    """`exact` searches in float32; `fast` in low precision where that holds. Verdicts are float32 either way."""
    shrinking: bool | None = None
    """l1: start in 3 and 2 times the ball for 0.3 of the iterations each. By default true in l1, false elsewhere."""


class ApgdRestartParams(ApgdParams):
    """Hyper-parameters of an untargeted APGD."""

    restarts: PositiveInt | None = None
    """Runs on each example from other starts; by default 1, and 5 in l1."""


class ApgdTargetParams(ApgdParams):
    """Hyper-parameters of targeted APGD."""

    targets: PositiveInt | None = None
    """Runs on each example, one a wrong class in the order of the clean logits, never more than there are; by default
    9, and 5 in l1."""


A = TypeVar("A", bound=ApgdParams)


class Apgd(JobAttack[A], Generic[A]):
    """What the three APGD attacks share; a subclass says what is raised and how often it is run.

    Args:
        params: hyper-parameters, validated; what they leave open is settled for the threat's norm.
        threat: norm, radius and knowledge.

    Raises:
        UsageError: `shrinking` outside l1, or a threat that the attack does not support.
    """

    norms = frozenset(Norm)

    def __init__(self, params: A, threat: ThreatModel) -> None:
        in_l1 = threat.norm is Norm.L1
        if params.shrinking and not in_l1:
            raise UsageError(
                f"attack {self.name!r}: shrinking is for the norm l1, not {threat.norm.value}; leave it out"
            )
        open_ = {"shrinking": in_l1, **self._published(threat.norm)}
        settled = {name: value for name, value in open_.items() if getattr(params, name) is None}
        super().__init__(params.model_copy(update=settled), threat)

    @classmethod
    @abstractmethod
    def _published(cls, norm: Norm) -> dict[str, int]:
        """What the published settings say about the parameters that depend on the norm."""

    @abstractmethod
    def loss(self, logits: Tensor, state: State) -> Tensor:
        """What is raised: (J,) from logits (J, K)."""

    @cached_property
    def ascent(self) -> Ascent:
        """The walk in the threat's ball."""
        norm, epsilon = self.threat.norm, float(self.threat.epsilon)
        plan = schedule(norm, self.params.steps, shrinking=bool(self.params.shrinking))
        if norm is Norm.L1:
            return SparseAscent(norm, epsilon, plan)
        return InertialAscent(norm, epsilon, plan, self.params.rho)

    def noise(self, jobs: Jobs, seed: int) -> Tensor:
        """Noise of each start (J, C, H, W), before it is scaled: uniform in [-1, 1) for linf, else standard normal."""
        noise, shape = torch.empty_like(jobs.images), tuple(jobs.images.shape[1:])
        for run in sorted(set(jobs.runs.tolist())):
            rows = (jobs.runs == run).nonzero().flatten()
            purpose = f"attack/{self.name}/{run}"
            if self.threat.norm is Norm.LINF:
                drawn = keyed_uniform(jobs.keys[rows], shape, seed=seed, purpose=purpose).mul_(2.0).sub_(1.0)
            else:
                drawn = keyed_normal(jobs.keys[rows], shape, seed=seed, purpose=purpose)
            noise[rows] = drawn
        return noise

    def begin(self, search: SearchModel, jobs: Jobs, seed: int) -> State:
        """See `JobAttack.begin`; the start is evaluated by the first step."""
        nobody = torch.zeros_like(jobs.labels, dtype=torch.bool)
        return self.ascent.begin(jobs.images, self.noise(jobs, seed)) | {
            "labels": jobs.labels,
            "watched": ~nobody,
            STUCK: nobody,
            UNDEFINED: nobody,
            NEAR: nobody,
        }

    def step(self, search: SearchModel, state: State) -> Step:
        """See `JobAttack.step`; one evaluation of each job's current point, then its move."""
        plan, here, age = self.ascent.plan, state["current"], state["age"]
        last = plan.evaluations - 1
        ages = state["clock"].tolist()
        logits, losses, gradient = self._evaluate(search, state, backward=not all(plan.ends[each] for each in ages))
        wrong = logits.argmax(dim=1) != state["labels"]
        finished = age == last
        # What breaks in one of the larger balls of l1 does not count.
        counts = age >= last - plan.iterations[-1]
        if search.uncertainty:
            margin = -negative_margin(logits, state["labels"])
            state[NEAR] = state[NEAR] | (counts & (margin <= search.uncertainty))
        gradient = state["best_gradient"] if gradient is None else self._finite(state, gradient, wrong)
        if min(ages) < last:
            self.ascent.advance(state, ages, losses, gradient)
        return Step(candidates=here, claims=wrong & counts, finished=finished)

    def _evaluate(self, search: SearchModel, state: State, *, backward: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits and losses of the last pass and, with `backward`, the gradient averaged over `eot_iter` passes."""
        if not backward:
            logits = search.logits(state["current"])
            return logits, self.loss(logits, state), None
        total: Tensor | None = None
        for _ in range(self.params.eot_iter):
            logits, losses, gradient = search.gradient(state["current"], lambda found: self.loss(found, state))
            total = gradient if total is None else total + gradient
        assert total is not None
        return logits, losses, total if self.params.eot_iter == 1 else total / self.params.eot_iter

    def _finite(self, state: State, gradient: Tensor, wrong: Tensor) -> Tensor:
        """The gradient without NaN and infinities; notes who met them, and who met a gradient of zero."""
        size = gradient.flatten(1).abs().amax(dim=1)
        state[STUCK] = state[STUCK] | (state["watched"] & (size == 0) & ~wrong)
        state[UNDEFINED] = state[UNDEFINED] | ~size.isfinite()
        return gradient.nan_to_num(0.0, 0.0, 0.0)

    @classmethod
    def passes(cls, params: Any, classes: int) -> tuple[int, int]:
        """See `Attack.passes`."""
        runs = min(params.targets or PUBLISHED_TARGETS, classes - 1) if cls is ApgdT else params.restarts or 1
        phases = 3 if params.shrinking else 1
        spent = runs * params.eot_iter * (params.steps + phases)
        return spent + 3, spent


class ApgdUntargeted(Apgd[ApgdRestartParams]):
    """An APGD that is restarted from other noise."""

    Params = ApgdRestartParams

    @classmethod
    def _published(cls, norm: Norm) -> dict[str, int]:
        return {"restarts": PUBLISHED_RESTARTS_L1 if norm is Norm.L1 else 1}

    def runs(self, classes: int) -> int:
        """See `JobAttack.runs`."""
        return self.params.restarts or 1


class ApgdCe(ApgdUntargeted):
    """APGD on the cross-entropy."""

    name = "apgd-ce"

    def loss(self, logits: Tensor, state: State) -> Tensor:
        """See `Apgd.loss`."""
        return cross_entropy(logits, state["labels"])


class ApgdDlr(ApgdUntargeted):
    """APGD on the difference of logits ratio; on the margin below 3 classes."""

    name = "apgd-dlr"

    def loss(self, logits: Tensor, state: State) -> Tensor:
        """See `Apgd.loss`."""
        return untargeted_dlr_objective(logits, state["labels"])


class ApgdT(Apgd[ApgdTargetParams]):
    """APGD on the targeted difference of logits ratio, one run a target; on the targeted margin below 4 classes."""

    name = "apgd-t"
    Params = ApgdTargetParams

    @classmethod
    def _published(cls, norm: Norm) -> dict[str, int]:
        return {"targets": PUBLISHED_TARGETS_L1 if norm is Norm.L1 else PUBLISHED_TARGETS}

    def runs(self, classes: int) -> int:
        """See `JobAttack.runs`."""
        return min(self.params.targets or PUBLISHED_TARGETS, classes - 1)

    def begin(self, search: SearchModel, jobs: Jobs, seed: int) -> State:
        """See `JobAttack.begin`."""
        return super().begin(search, jobs, seed) | {
            "targets": target_classes(jobs.logits, jobs.runs),
            # Against a class whose logit never moves the ratio itself can be constant: that says nothing of the model.
            "watched": jobs.runs == 0,
        }

    def loss(self, logits: Tensor, state: State) -> Tensor:
        """See `Apgd.loss`."""
        return targeted_objective(logits, state["labels"], state["targets"])
