"""One adversarial evaluation under way: every stage on what stands, written down as it goes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
import torch

from robusteval.attacks.base import Verdict
from robusteval.attacks.cascade import drawn
from robusteval.attacks.jobs import AnyJobAttack, JobAttack
from robusteval.attacks.spec_id import spec_id
from robusteval.attacks.symptoms import flags_from_symptoms
from robusteval.data.batches import Batch, DeviceSet
from robusteval.evaluators.adversarial_images import kept_images
from robusteval.evaluators.adversarial_report import ATTACKED, Findings, mode_flags
from robusteval.evaluators.adversarial_stages import Stage
from robusteval.evaluators.base import EvaluationContext
from robusteval.evaluators.clerk import Clerk
from robusteval.evaluators.details import Details
from robusteval.evaluators.first_right import FirstRight
from robusteval.evaluators.image_parts import About
from robusteval.evaluators.journal import Journal, question_of
from robusteval.evaluators.masking import CHECKED, Spread, black_box_flags, convergence_flags, masking_flags
from robusteval.evaluators.model_checks import check_gradient, check_memory, clean_logits, naming_examples
from robusteval.evaluators.predictions import domain_accuracies
from robusteval.evaluators.views import Views
from robusteval.models.classifier import Classifier
from robusteval.models.form_building import PROBES
from robusteval.models.search import SearchModel
from robusteval.schema.records import Bits, Evaluation, Flag
from robusteval.schema.threats import Threat
from robusteval.schema.types import Access

if TYPE_CHECKING:
    from robusteval.evaluators.adversarial import AdversarialParams

CLEAN = "clean"
PACKED_BYTES = 2**27
"""Clean images of one call to an attack that packs its own batches take at most this much memory, or fill its slots."""


class AdversarialRun:
    """One evaluation under way.

    Positions below are positions in key order, with the examples of one view of the model side by side.
    """

    def __init__(
        self,
        params: AdversarialParams,
        views: Views,
        context: EvaluationContext,
        stages: Sequence[Stage],
        *,
        protocol: int,
        whole: FirstRight | None = None,
    ) -> None:
        self.params, self.views, self.data, self.context = params, views, views.data, context
        data, model = views.data, views.models[0]
        self.passes = model.passes
        self.order = np.lexsort((data.keys, views.of))
        self.examples = DeviceSet(data.take(self.order), model.device)
        self._view_of: list[int] = views.of[self.order].tolist()
        self.whole = whole
        self.question = question_of(params, context, protocol, self.examples.ids)
        self.journal = Journal(context.scratch, self.question)
        self.stages = list(stages)
        labels = [stage.label for stage in stages]
        self.details = Details(context.scratch, self.question, labels, self.order)
        if not self.details.restored:  # verdicts without their details would leave holes
            self.journal.start_again()
        about = About(self.question, data.ids_digest, tuple(labels), len(data), model.input_shape)
        self.images = kept_images(params.keep, context, about, self.order)
        self._names = dict(zip(self.examples.keys.tolist(), self.examples.ids, strict=True))
        self.outcomes: dict[str, list[bool]] = {}
        self.attacked: dict[str, list[bool]] = {}
        self._current: list[bool] = []
        self._searches: dict[int, SearchModel] = {}
        self._cost_done, self._cost_total = 0, 1 + sum(stage.cost for stage in stages)

    def predict_clean(self) -> None:
        """Decide which examples the model gets right."""
        n = len(self.examples)
        self._progress(0.0, 1, CLEAN)
        part = self.journal.part(CLEAN)
        asked_again = False
        while missing := part.missing(n):
            positions = self._of_one_view(missing[: self.context.batch_size])
            view = self._view_of[positions[0]]
            batch = self._batch(positions)
            before = self.passes.snapshot()
            names = [self.examples.ids[place] for place in positions]
            classes = clean_logits(self.views.models[view], batch.images, names).argmax(dim=1)
            if not asked_again:
                check_memory(self.views.models[view], batch.images, names)
                if self._needs_gradients:
                    check_gradient(self.views.models[view], batch.images, names)
                asked_again = True
            said = (self.views.original(view, numbers.tolist()) for numbers in (batch.labels, classes))
            self.details.predicted(positions, *said)
            self.details.save()
            right = dict(zip(positions, (classes == batch.labels).tolist(), strict=True))
            self.journal.settle(CLEAN, right, {}, len(right), self.passes.since(before))
            self._progress(part.done / n, 1, CLEAN)
        self.outcomes[CLEAN] = list(part.kept)
        self._current = self.outcomes[CLEAN]
        self._cost_done += 1

    @property
    def _needs_gradients(self) -> bool:
        threat = self.context.threat
        needed = any(stage.attack.needs is Access.WHITE_BOX for stage in self.stages)
        return needed and threat is not None and not threat.only_clean

    def attack(self, stage: Stage) -> None:
        """Run one stage on what stands."""
        standing = self.standing(stage)
        with naming_examples(self._names):
            if isinstance(stage.attack, JobAttack):
                self._attack_packed(stage, stage.attack, standing)
            else:
                self._attack_in_batches(stage, standing)
        after = list(self._current)
        for position, stands in zip(standing, self.journal.part(stage.label).kept, strict=True):
            after[position] = stands
        self.outcomes[stage.label] = self._current = after
        self._cost_done += stage.cost

    def standing(self, stage: Stage) -> list[int]:
        """Positions of what the next stage is run on: what stands, or a share of that."""
        if stage.first and not self.params.cascade:
            self._current = self.outcomes[CLEAN]
        seen = self._current
        if stage.share < 1.0:
            lot = drawn(self.examples.keys, stage.share, self.context.seed).tolist()
            seen = [stands and chosen for stands, chosen in zip(self._current, lot, strict=True)]
            self.attacked[stage.label] = seen
        return [position for position, stands in enumerate(seen) if stands]

    def _attack_in_batches(self, stage: Stage, standing: list[int]) -> None:
        part = self.journal.part(stage.label)
        size = stage.attack.composition or self.context.batch_size
        while missing := part.missing(len(standing)):
            places = missing[: len(self._of_one_view([standing[place] for place in missing[:size]]))]
            positions = [standing[place] for place in places]
            model, batch = self._model(positions), self._batch(positions)
            result = stage.attack(model, batch.images, batch.labels, keys=batch.keys, seed=self.context.seed)
            fell = result.broken.nonzero().flatten()
            before = self.passes.snapshot()
            self._keep_images(stage.label, [positions[index] for index in fell.tolist()], result.adversarial[fell])
            self.journal.spend(self.passes.since(before))
            self.details.note(stage.label, positions, result)
            self.details.save()
            kept = dict(zip(places, (~result.broken).tolist(), strict=True))
            self.journal.settle(stage.label, kept, result.symptoms, result.attacked, result.budget)
            self._progress(part.done / len(standing), stage.cost, stage.label)

    def _attack_packed(self, stage: Stage, attack: AnyJobAttack, standing: list[int]) -> None:
        """Give the engine many examples at a time and write its verdicts down as they come."""
        part = self.journal.part(stage.label)
        bytes_each = 4 * math.prod(self.data.images.shape[1:])
        size = max(1, min(attack.many, max(attack.slots, PACKED_BYTES // bytes_each)))
        while missing := part.missing(len(standing)):
            positions = self._of_one_view([standing[place] for place in missing[:size]])
            places = missing[: len(positions)]
            attack.search = self._prepared_search(attack, self._view_of[positions[0]])
            model, batch = self._model(positions), self._batch(positions)
            clerk = Clerk(
                self.journal,
                stage.label,
                places,
                keep=lambda verdicts: self._keep(stage.label, standing, verdicts),
                written=lambda: self._progress(part.done / len(standing), stage.cost, stage.label),
            )
            result = attack(
                model, batch.images, batch.labels, keys=batch.keys, seed=self.context.seed, on_verdict=clerk.hear
            )
            before = self.passes.snapshot()
            # Rounding the last images is the only thing here that makes a pass; earlier ones are in the result.
            clerk.close(result)
            self.journal.spend(self.passes.since(before))

    def _keep(self, label: str, standing: list[int], verdicts: Mapping[int, Verdict]) -> None:
        images = {standing[place]: found.image for place, found in verdicts.items() if found.image is not None}
        if self.images is not None and images:
            self._keep_images(label, list(images), torch.stack(list(images.values())))
        self.details.hear(label, ((standing[place], verdict) for place, verdict in verdicts.items()))
        self.details.save()

    def _keep_images(self, label: str, positions: list[int], adversarial: torch.Tensor) -> None:
        if self.images is not None and positions:
            clean = self._batch(positions)
            images = adversarial, clean.images, clean.labels
            self.details.saved(self.images.add(self._model(positions), label, positions, images))

    def _prepared_search(self, attack: AnyJobAttack, view: int) -> SearchModel:
        """One search model a view for all attacks, measured on the same examples after a resume as before it."""
        search = self._searches.setdefault(view, SearchModel(self.views.models[view]))
        probes = self._first_right(view, PROBES).images
        before = self.passes.snapshot()
        search.at(attack.precision).prepare(probes)
        spent = self.passes.since(before)
        self.journal.spend(spent) if self.whole is None else self.journal.spend_as_all(spent)
        return search

    def _first_right(self, view: int, count: int) -> Batch:
        """The first correctly classified examples of one view of the whole evaluation."""
        if self.whole is not None:
            return self.whole.of(view, count)
        right = [place for place, right in enumerate(self.outcomes[CLEAN]) if right and self._view_of[place] == view]
        return self._batch(right[:count])

    def _of_one_view(self, positions: list[int]) -> list[int]:
        """The first positions, as far as they share the view of the first one."""
        view = self._view_of[positions[0]]
        return list(takewhile(lambda position: self._view_of[position] == view, positions))

    def _model(self, positions: Sequence[int]) -> Classifier:
        """The classifier of positions that share one view."""
        return self.views.models[self._view_of[positions[0]]]

    def check(self, threat: Threat) -> tuple[Flag, ...]:
        """Flags of the masking checks on the first correctly classified examples, all of one view."""
        if self.journal.flags is None:
            batches = [self._first_right(view, CHECKED) for view in range(len(self.views.models))]
            view = max(range(len(batches)), key=lambda view: len(batches[view]))
            before = self.passes.snapshot()
            flags = masking_flags(self.views.models[view], batches[view], threat, self.context.seed)
            self.journal.settle_flags(flags, self.passes.since(before))
        return tuple(self.journal.flags or ())

    def evaluation(self, checked: Sequence[Flag]) -> Evaluation:
        """Everything that was found, in the caller's order."""
        after = {stage.label: self.outcomes[stage.label] for stage in self.stages}
        found = Findings(self.params.cascade, self.stages, self.outcomes[CLEAN], after, self.attacked)
        robust = found.robust
        attacked = {ATTACKED + label: seen for label, seen in self.attacked.items()}
        self.context.progress(1.0, "done")
        return Evaluation(
            metrics=(
                *domain_accuracies("robust_accuracy", self.in_callers_order(robust), self.data),
                *found.metrics(),
            ),
            outcomes={
                name: Bits.pack(self.in_callers_order(flags))
                for name, flags in {**self.outcomes, "robust": robust, **attacked}.items()
            },
            domains=self.data.domain_counts,
            flags=_distinct([*checked, *self._attack_flags(found), *mode_flags(self.params.attacks, found)]),
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
            classes=self.views.most_classes,
            budget=self.params.budget,
        )

    def _attack_flags(self, found: Findings) -> Iterator[Flag]:
        for label in (CLEAN, *(stage.label for stage in self.stages)):
            part = self.journal.part(label)
            yield from flags_from_symptoms(label, part.symptoms, part.attacked)
        yield from black_box_flags(list(found.tallies()))
        if self.params.checks:
            yield from convergence_flags(list(self._spread()), sum(self.outcomes[CLEAN]))

    def _spread(self) -> Iterator[Spread]:
        for stage in self.stages:
            if stage.steps is not None:
                yield Spread(stage.label, stage.steps, *self.details.late(stage.label, stage.steps))

    def _batch(self, positions: list[int]) -> Batch:
        return self.examples.batch(torch.tensor(positions, dtype=torch.int64, device=self.examples.device))

    def in_callers_order(self, flags: Sequence[bool]) -> list[bool]:
        """What is known by position, by the caller's order instead."""
        restored = np.empty(len(flags), dtype=bool)
        restored[self.order] = np.asarray(flags, dtype=bool)
        found: list[bool] = restored.tolist()
        return found

    def _progress(self, share: float, cost: int, what: str) -> None:
        self.context.progress(min(1.0, (self._cost_done + share * cost) / self._cost_total), what)


def _distinct(flags: Sequence[Flag]) -> tuple[Flag, ...]:
    return tuple(dict.fromkeys(flags))
