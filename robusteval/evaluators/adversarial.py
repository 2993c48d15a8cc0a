"""Robust accuracy: the worst case per example over the attacks of a threat model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field

from robusteval.attacks import ATTACKS
from robusteval.attacks.base import Attack, Verdict, build_attack
from robusteval.attacks.jobs import AnyJobAttack, JobAttack
from robusteval.attacks.spec_id import spec_id
from robusteval.attacks.symptoms import NAN_LOGITS, flags_from_symptoms
from robusteval.data.batches import Batch, DeviceSet
from robusteval.data.imageset import ImageSet
from robusteval.evaluators.base import EvaluationContext, Evaluator
from robusteval.evaluators.clerk import Clerk
from robusteval.evaluators.details import Details
from robusteval.evaluators.journal import Journal
from robusteval.evaluators.masking import CHECKED, Tally, black_box_flags, masking_flags
from robusteval.evaluators.predictions import accuracy_metric, check_fit, domain_accuracies
from robusteval.models.classifier import Classifier
from robusteval.models.forms import PROBES
from robusteval.models.search import SearchModel
from robusteval.schema.digest import json_digest
from robusteval.schema.errors import UsageError
from robusteval.schema.params import canonical_params, checked_params
from robusteval.schema.records import Bits, Evaluation, Flag, Metric
from robusteval.schema.specs import ComponentSpec
from robusteval.schema.types import Access, Component, Frozen, ThreatModel

CLEAN = "clean"
PACKED_BYTES = 2**27
"""Clean images of one call to an attack that packs its own batches take at most this much memory, or fill its slots."""


class AdversarialParams(Frozen):
    """Parameters of the adversarial evaluator."""

    attacks: tuple[ComponentSpec, ...] = Field(default=(Component(name="pgd"),), min_length=1)
    """Attacks, in this order."""
    cascade: bool = True
    """Each attack only sees what the earlier ones left standing, and is reported as the accuracy after it. If false,
    every attack sees all correctly classified examples and is reported by itself; the robust accuracy is the same
    wherever an attack's verdict on an example does not depend on the others in its batch."""
    checks: bool = True
    """Look for symptoms of gradient masking on a few examples."""


@dataclass(frozen=True)
class Stage:
    """One attack of the evaluation, or one member of an ensemble.

    Attributes:
        label: name in the outcomes.
        attack: what runs.
        first: whether it is the first stage of an attack that the user listed.
        cost: passes on an example that survives, backward passes counted twice; for the progress only.
    """

    label: str
    attack: Attack[Any]
    first: bool
    cost: int


def plan_stages(attacks: Sequence[Component], threat: ThreatModel, classes: int) -> list[Stage]:
    """Attacks and members of ensembles in order, with distinct labels: a repeated name gets `#2`, `#3`, ..."""
    stages: list[Stage] = []
    seen: dict[str, int] = {}
    for component in attacks:
        attack = build_attack(component, threat)
        seen[component.name] = seen.get(component.name, 0) + 1
        label = component.name if seen[component.name] == 1 else f"{component.name}#{seen[component.name]}"
        members = attack.stages()
        for position, member in enumerate(members):
            forward, backward = member.passes(member.params, classes)
            suffix = f"/{member.name.rpartition('/')[2]}" if len(members) > 1 else ""
            stages.append(Stage(label + suffix, member, position == 0, forward + 2 * backward))
    return stages


class AdversarialEvaluator(Evaluator[AdversarialParams]):
    """Run attacks on what the model gets right; an example is robust if it survives all of them.

    Examples are taken in the order of their keys, so neither the order nor the batch size of the caller changes a
    result; attacks whose examples influence each other get batches of their own fixed size.

    Outcomes: `clean`; one per attack, and per member of an ensemble (`autoattack-reference/apgd-t`), true where the
    example still stands after it; `robust`. Metrics: `accuracy`, `robust_accuracy` (with domains, macro and worst) and
    `accuracy_after/<label>`, or `accuracy_under/<label>` without the cascade.
    """

    Params = AdversarialParams

    def evaluate(self, model: Classifier, data: ImageSet, context: EvaluationContext) -> Evaluation:
        """See `Evaluator.evaluate`.

        Raises:
            UsageError: the context has no threat model.
            CellError: the data does not fit, or the model or an attack broke its contract.
        """
        if context.threat is None:
            raise UsageError("the adversarial evaluator needs a threat model: a norm and an epsilon")
        check_fit(model, data)
        stages = plan_stages(self.params.attacks, context.threat, model.classes)
        for stage in stages:
            stage.attack.check_model(model)
        run = _Run(self.params, model, data, context, stages)
        with model.frozen():
            run.predict_clean()
            for stage in stages:
                run.attack(stage)
            flags = run.check(context.threat) if self.params.checks else ()
        return run.evaluation(flags)

    @classmethod
    def passes(cls, params: AdversarialParams, classes: int) -> tuple[int, int]:
        """See `Evaluator.passes`."""
        forward, backward = 1, 0
        for component in params.attacks:
            attack = ATTACKS.load(component.name)
            chosen = checked_params(f"attack {component.name!r}", attack.Params, component.params)
            spent = attack.passes(chosen, classes)
            forward, backward = forward + spent[0], backward + spent[1]
        return forward, backward


class _Run:
    """One evaluation under way. Positions below are positions in key order."""

    def __init__(
        self,
        params: AdversarialParams,
        model: Classifier,
        data: ImageSet,
        context: EvaluationContext,
        stages: Sequence[Stage],
    ) -> None:
        self.params, self.model, self.data, self.context = params, model, data, context
        self.order = np.argsort(data.keys, kind="stable")
        self.examples = DeviceSet(data.take(self.order), model.device)
        question = {
            "params": canonical_params(params),
            "threat": context.threat and context.threat.model_dump(mode="json", context={"canonical": True}),
            "seed": context.seed,
            "protocol": AdversarialEvaluator.protocol,
            "ids": list(self.examples.ids),
        }
        self.journal = Journal(context.scratch, json_digest(question))
        self.stages = list(stages)
        labels = [stage.label for stage in stages]
        self.details = Details(context.scratch, json_digest(question), labels, self.order)
        self.outcomes: dict[str, list[bool]] = {}
        self._current: list[bool] = []
        self._search: SearchModel | None = None
        self._cost_done, self._cost_total = 0, 1 + sum(stage.cost for stage in stages)

    def predict_clean(self) -> None:
        """Decide which examples the model gets right."""
        n = len(self.examples)
        self._progress(0.0, 1, CLEAN)
        for positions in self._batches(CLEAN, list(range(n)), self.context.batch_size):
            batch = self.examples.batch(positions)
            before = self.model.passes.snapshot()
            with torch.no_grad():
                logits = self.model(batch.images)
            undefined = logits.isnan().any(dim=1)
            right = (logits.argmax(dim=1) == batch.labels) & ~undefined
            self.details.predicted(positions.tolist(), logits.argmax(dim=1).tolist())
            self.details.save()
            symptoms = {NAN_LOGITS: int(undefined.sum())}
            self.journal.extend(CLEAN, right.tolist(), symptoms, len(right), self.model.passes.since(before))
            self._progress(len(self.journal.part(CLEAN).kept) / n, 1, CLEAN)
        self.outcomes[CLEAN] = list(self.journal.part(CLEAN).kept)
        self._current = self.outcomes[CLEAN]
        self._cost_done += 1

    def attack(self, stage: Stage) -> None:
        """Run one stage on what stands."""
        if stage.first and not self.params.cascade:
            self._current = self.outcomes[CLEAN]
        standing = [position for position, stands in enumerate(self._current) if stands]
        if isinstance(stage.attack, JobAttack):
            self._attack_packed(stage, stage.attack, standing)
        else:
            self._attack_in_batches(stage, standing)
        after = list(self._current)
        for position, stands in zip(standing, self.journal.part(stage.label).kept, strict=True):
            after[position] = stands
        self.outcomes[stage.label] = self._current = after
        self._cost_done += stage.cost

    def _attack_in_batches(self, stage: Stage, standing: list[int]) -> None:
        part = self.journal.part(stage.label)
        for positions in self._batches(stage.label, standing, stage.attack.composition or self.context.batch_size):
            batch = self.examples.batch(positions)
            result = stage.attack(self.model, batch.images, batch.labels, keys=batch.keys, seed=self.context.seed)
            self.details.note(stage.label, positions.tolist(), result)
            self.details.save()
            kept = (~result.broken).tolist()
            self.journal.extend(stage.label, kept, result.symptoms, result.attacked, result.budget)
            self._progress(len(part.kept) / len(standing), stage.cost, stage.label)

    def _attack_packed(self, stage: Stage, attack: AnyJobAttack, standing: list[int]) -> None:
        """Give the engine many examples at a time and write its verdicts down as they come."""
        part = self.journal.part(stage.label)
        bytes_each = 4 * math.prod(self.model.input_shape)
        size = max(1, min(attack.many, max(attack.slots, PACKED_BYTES // bytes_each)))
        while missing := part.missing(len(standing)):
            places = missing[:size]
            attack.search = self._prepared_search(attack)
            batch = self._batch([standing[place] for place in places])
            clerk = Clerk(
                self.journal,
                stage.label,
                places,
                keep=lambda verdicts: self._keep(stage.label, standing, verdicts),
                written=lambda: self._progress(part.done / len(standing), stage.cost, stage.label),
            )
            result = attack(
                self.model, batch.images, batch.labels, keys=batch.keys, seed=self.context.seed, on_verdict=clerk.hear
            )
            clerk.close(result)

    def _keep(self, label: str, standing: list[int], verdicts: Mapping[int, Verdict]) -> None:
        self.details.hear(label, ((standing[place], verdict) for place, verdict in verdicts.items()))
        self.details.save()

    def _prepared_search(self, attack: AnyJobAttack) -> SearchModel:
        """One search model for all attacks, measured on the same examples after a resume as before it."""
        if self._search is None:
            self._search = SearchModel(self.model)
        probes = [position for position, right in enumerate(self.outcomes[CLEAN]) if right][:PROBES]
        before = self.model.passes.snapshot()
        self._search.at(attack.precision).prepare(self._batch(probes).images)
        self.journal.spend(self.model.passes.since(before))
        return self._search

    def check(self, threat: ThreatModel) -> tuple[Flag, ...]:
        """Flags of the masking checks on the first correctly classified examples."""
        if self.journal.flags is None:
            right = [position for position, stands in enumerate(self.outcomes[CLEAN]) if stands][:CHECKED]
            before = self.model.passes.snapshot()
            flags = masking_flags(self.model, self._batch(right), threat, self.context.seed)
            self.journal.settle_flags(flags, self.model.passes.since(before))
        return tuple(self.journal.flags or ())

    def evaluation(self, checked: Sequence[Flag]) -> Evaluation:
        """Everything that was found, in the caller's order."""
        robust = [all(stands) for stands in zip(*self.outcomes.values(), strict=True)]
        self.context.progress(1.0, "done")
        return Evaluation(
            metrics=tuple(self._metrics(robust)),
            outcomes={
                name: Bits.pack(self._in_callers_order(flags))
                for name, flags in {**self.outcomes, "robust": robust}.items()
            },
            domains=self.data.domain_counts,
            flags=_distinct([*checked, *self._attack_flags()]),
            budget=self.journal.budget,
            spec=self._spec(),
        )

    def _spec(self) -> str | None:
        assert self.context.threat is not None
        return spec_id(
            self.params.attacks,
            self.context.threat,
            examples=len(self.examples),
            seed=self.context.seed,
            classes=self.model.classes,
        )

    def _metrics(self, robust: list[bool]) -> Iterator[Metric]:
        yield from domain_accuracies("robust_accuracy", self._in_callers_order(robust), self.data)
        yield accuracy_metric("accuracy", self.outcomes[CLEAN])
        word = "after" if self.params.cascade else "under"
        for stage in self.stages:
            yield accuracy_metric(f"accuracy_{word}/{stage.label}", self.outcomes[stage.label])

    def _attack_flags(self) -> Iterator[Flag]:
        for label in (CLEAN, *(stage.label for stage in self.stages)):
            part = self.journal.part(label)
            yield from flags_from_symptoms(label, part.symptoms, part.attacked)
        yield from black_box_flags(list(self._tallies()))

    def _tallies(self) -> Iterator[Tally]:
        """What each stage broke beyond the white-box stages: all of them, or those before it in a cascade."""
        white = [stage.attack.access is Access.WHITE_BOX for stage in self.stages]
        after = [self.outcomes[CLEAN], *(self.outcomes[stage.label] for stage in self.stages)]
        shared = after[0]
        for is_white, outcome in zip(white, after[1:], strict=True):
            shared = [a and b for a, b in zip(shared, outcome, strict=True)] if is_white else shared
        for position, stage in enumerate(self.stages):
            compared = any(white[:position]) if self.params.cascade else any(white)
            before = after[position] if self.params.cascade else shared
            newly = sum(stood and not stays for stood, stays in zip(before, after[position + 1], strict=True))
            if compared or white[position]:
                yield Tally(stage.label, stage.attack.access, newly, sum(before))

    def _batches(self, name: str, positions: list[int], size: int) -> Iterator[torch.Tensor]:
        """What is left of a part, in batches; the journal grows between two of them."""
        while (done := len(self.journal.part(name).kept)) < len(positions):
            yield torch.tensor(positions[done : done + size], device=self.examples.device)

    def _batch(self, positions: list[int]) -> Batch:
        return self.examples.batch(torch.tensor(positions, dtype=torch.int64, device=self.examples.device))

    def _in_callers_order(self, flags: Sequence[bool]) -> list[bool]:
        restored = np.empty(len(flags), dtype=bool)
        restored[self.order] = np.asarray(flags, dtype=bool)
        found: list[bool] = restored.tolist()
        return found

    def _progress(self, share: float, cost: int, what: str) -> None:
        self.context.progress(min(1.0, (self._cost_done + share * cost) / self._cost_total), what)


def _distinct(flags: Sequence[Flag]) -> tuple[Flag, ...]:
    return tuple(dict.fromkeys(flags))
