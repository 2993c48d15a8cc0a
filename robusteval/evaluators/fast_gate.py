"""A fast answer to one question: did a model lose robustness against a baseline? Cheapest evidence first.

The clean prediction, then the baseline's stored adversarial images (one pass each, clipped into the ball again), then a
short attack on what still stands, then the full protocol for as many examples as the budget of passes allows; examples
that the baseline kept by the smallest margin come first. After each part the caller is asked whether the answer stands.

What was not attacked counts as robust, so the number found is an upper bound. Attacking on can only add losses and
remove gains, both of which speak for a regression, so stopping early never raises a false alarm; but only a finished
protocol can say that there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusteval.attacks.base import build_attack, judged, original_logits
from robusteval.attacks.geometry import clip_to_threat
from robusteval.data.batches import Batch, DeviceSet
from robusteval.data.imageset import ImageSet
from robusteval.evaluators.adversarial import AdversarialEvaluator, AdversarialParams
from robusteval.evaluators.adversarial_images import as_pixels
from robusteval.evaluators.base import EvaluationContext
from robusteval.evaluators.model_checks import check_devices, check_memory, clean_logits, has_gradient
from robusteval.evaluators.predictions import check_fit
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import UsageError
from robusteval.schema.records import Budget
from robusteval.schema.types import Access, Component, ThreatModel

SHORT = Component(name="apgd-ce", params={"steps": 8, "restarts": 1})
"""The short attack on everything that stands."""
SECOND = Component(name="apgd-t", params={"steps": 5, "targets": 1})
"""What the rest of the budget buys where the full protocol of one example does not fit: another loss."""
FEWEST_CLASSES = 4
"""Classes that the loss of the second short attack needs."""
CHUNK = 64
"""Examples between two questions to the caller."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Known:
    """What is kept of a baseline, in the order of the examples.

    Attributes:
        images: adversarial image (C, H, W) of an example by its position, uint8 levels or float32 in [0, 1].
        margins: (N,) smallest margin that an attack left, NaN where unknown.
    """

    images: Mapping[int, NDArray[Any]] = field(default_factory=dict)
    margins: NDArray[np.floating[Any]] | None = None


@dataclass(frozen=True)
class GatePart:
    """One part of what a fast gate did.

    Attributes:
        what: `clean`, `replay`, the name of a short attack, or `full protocol`.
        examples: examples that it looked at.
        broke: examples that it broke, or that were misclassified without any attack.
        passes: forward and backward passes.
    """

    what: str
    examples: int
    broke: int
    passes: int


@dataclass(frozen=True)
class FastFindings:
    """What a fast gate found.

    Attributes:
        stands: (N,) whether no part broke the example.
        settled: (N,) whether the full protocol would find the same: broken, or attacked by all of it.
        parts: what was done, in order.
        budget: passes spent.
    """

    stands: Bools
    settled: Bools
    parts: tuple[GatePart, ...]
    budget: Budget

    @property
    def complete(self) -> bool:
        """Whether the full protocol has the last word on every example."""
        return bool(self.settled.all())


def run_fast_gate(
    model: Classifier,
    data: ImageSet,
    context: EvaluationContext,
    params: AdversarialParams,
    *,
    known: Known,
    passes: int,
    decided: Callable[[Bools], bool],
) -> FastFindings:
    """Look for losses, cheapest evidence first.

    Args:
        model: the classifier; it is left as it was.
        data: the examples of the baseline, in its order.
        context: threat model and seed of the baseline; scratch space is not used.
        params: the full protocol.
        known: what is kept of the baseline.
        passes: forward and backward passes an example on average, at most; the clean prediction, the replay and the
            short attack are always done.
        decided: asked with (N,) what stands so far, whether that is enough; true ends the gate.

    Raises:
        UsageError: no threat model, a protocol that leaves examples open, or domains with fewer classes.
        CellError: the data does not fit, or the model or an attack broke its contract.
    """
    if context.threat is None:
        raise UsageError("a fast gate is about an attacked cell: it needs a threat model")
    if any(component.params.get("mode") == "two-stage" for component in params.attacks):
        raise UsageError("mode: two-stage leaves some examples open, and a fast gate has to know which stand")
    if any(domain in data.subsets for domain, _ in data.domain_counts):
        raise UsageError("a fast gate predicts among all classes, and this data has domains with fewer; use evaluate")
    check_fit(model, data)
    check_devices(model)
    gate = _FastGate(model, data, context, params, passes * len(data))
    start = model.passes.snapshot()
    with model.frozen():
        margins = gate.clean()
        stored = np.full(len(data), np.nan) if known.margins is None else known.margins
        gate.order = np.argsort(np.where(np.isnan(stored), margins, stored), kind="stable")
        gate.replay(known.images)
        over = decided(gate.stands)
        if not over and gate.short_pays:
            over = gate.short(SHORT, decided)
            if not over and gate.each > gate.left and model.classes >= FEWEST_CLASSES:
                over = gate.short(SECOND, decided, bounded=True)
        if not over:
            gate.full_protocol(decided)
    return FastFindings(gate.stands, gate.settled, tuple(gate.parts), model.passes.since(start))


class _FastGate:
    def __init__(
        self, model: Classifier, data: ImageSet, context: EvaluationContext, params: AdversarialParams, allowed: int
    ) -> None:
        self.model, self.data, self.context, self.params, self.allowed = model, data, context, params, allowed
        self.examples = DeviceSet(data, model.device)
        self.start = model.passes.snapshot()
        self.stands = np.ones(len(data), dtype=bool)
        self.settled = np.zeros(len(data), dtype=bool)
        self.order = np.arange(len(data))
        self.parts: list[GatePart] = []
        self.differentiable = True
        self.each = max(1, sum(AdversarialEvaluator.passes(params, model.classes)))

    @property
    def spent(self) -> int:
        found = self.model.passes.since(self.start)
        return found.forward + found.backward

    @property
    def short_pays(self) -> bool:
        """Whether there are gradients to be used in a ball, and the full protocol does not fit the budget anyway."""
        threat = self.context.threat
        usable = isinstance(threat, ThreatModel) and threat.access is Access.WHITE_BOX
        return usable and self.differentiable and self.each * int(self.stands.sum()) > self.left

    @property
    def left(self) -> int:
        return self.allowed - self.spent

    def clean(self) -> NDArray[np.float64]:
        """Predict the clean images; returns their margins (N,)."""
        begun, ids = self.spent, list(self.examples.ids)
        found: list[Tensor] = []
        for batch in self.examples.in_order(self.context.batch_size):
            names, ids = ids[: len(batch)], ids[len(batch) :]
            logits = clean_logits(self.model, batch.images, names).float()
            if not found:
                check_memory(self.model, batch.images, names)
                self.differentiable = has_gradient(self.model, batch.images)
            margin, wrong = judged(logits, batch.labels)
            found.append(torch.stack([margin.double(), wrong.double()]).cpu())
        margins, wrong = torch.cat(found, dim=1).numpy()
        self._broke(np.flatnonzero(wrong))
        self._note("clean", len(margins), int(wrong.sum()), begun)
        return np.asarray(margins, dtype=np.float64)

    def replay(self, images: Mapping[int, NDArray[Any]]) -> None:
        """Show the stored adversarial images."""
        begun = self.spent
        chosen = [example for example in images if self.stands[example]]
        before = int(self.stands.sum())
        for first in range(0, len(chosen), self.context.batch_size):
            part = np.asarray(chosen[first : first + self.context.batch_size])
            batch = self._batch(part)
            pixels = torch.stack([_pixels(images[int(example)]) for example in part]).to(batch.images.device)
            assert isinstance(self.context.threat, ThreatModel), "only images of a ball are kept"
            shown = clip_to_threat(pixels.nan_to_num(), batch.images, self.context.threat)
            with torch.no_grad():
                _, wrong = judged(original_logits(self.model, shown), batch.labels)
            self._broke(part[wrong.cpu().numpy()])
        if chosen:
            self._note("replay", len(chosen), before - int(self.stands.sum()), begun)

    def short(self, component: Component, decided: Callable[[Bools], bool], *, bounded: bool = False) -> bool:
        """Attack what stands, part by part; returns whether the caller has seen enough."""
        assert self.context.threat is not None
        attack = build_attack(component, self.context.threat)
        cost = max(1, sum(attack.passes(attack.params, self.model.classes)))
        begun, before = self.spent, int(self.stands.sum())
        waiting = self.order[self.stands[self.order]]
        if bounded:
            waiting = waiting[: max(0, self.left) // cost]
        seen, over = 0, False
        while seen < len(waiting) and not over:
            part = waiting[seen : seen + CHUNK]
            batch = self._batch(part)
            found = attack(self.model, batch.images, batch.labels, keys=batch.keys, seed=self.context.seed)
            self._broke(part[found.broken.cpu().numpy()])
            seen += len(part)
            over = decided(self.stands)
        if seen:
            self._note(component.name, seen, before - int(self.stands.sum()), begun)
        return over

    def full_protocol(self, decided: Callable[[Bools], bool]) -> None:
        """The full protocol on as many of the rest as the budget surely allows, asked again as examples cost less."""
        evaluator = AdversarialEvaluator(self.params.model_copy(update={"checks": False, "keep": "none"}))
        begun, before, seen, over = self.spent, int(self.stands.sum()), 0, False
        while not over:
            waiting = self.order[(self.stands & ~self.settled)[self.order]]
            part = waiting[: min(CHUNK, max(0, self.left) // self.each)]
            if not len(part):
                break
            context = replace(self.context, scratch=None)
            found = evaluator.evaluate(self.model, self.data.take(part), context).outcomes["robust"].unpack()
            self._broke(part[~np.asarray(found, dtype=bool)])
            self.settled[part] = True
            seen += len(part)
            over = decided(self.stands)
        if seen:
            self._note("full protocol", seen, before - int(self.stands.sum()), begun)

    def _broke(self, examples: NDArray[np.intp]) -> None:
        self.stands[examples] = False
        self.settled[examples] = True

    def _note(self, what: str, examples: int, broke: int, begun: int) -> None:
        self.parts.append(GatePart(what, examples, broke, self.spent - begun))

    def _batch(self, examples: NDArray[np.intp]) -> Batch:
        return self.examples.batch(torch.as_tensor(examples, dtype=torch.int64, device=self.examples.device))


def _pixels(image: NDArray[Any]) -> Tensor:
    found = torch.from_numpy(np.ascontiguousarray(image))
    return as_pixels(found) if found.dtype == torch.uint8 else found.float()
