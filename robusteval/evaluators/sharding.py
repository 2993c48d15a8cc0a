"""One adversarial evaluation in shares, by range of examples, put together by example id.

Examples are shared out in the order of their keys, which are hashes, so that shares are alike. A share runs the same
stages as the whole evaluation on its own examples, with a journal of its own. All randomness belongs to an example, and
the search model and the masking checks look at the first correctly classified examples of the whole evaluation, so a
verdict does not depend on the share that found it. Nothing is padded, repeated or averaged: putting together fills the
journal and the details of the whole from those of the shares, and the evaluation is then read from them without a pass.

On one CPU thread in `exact` precision the result is that of an evaluation in one piece, byte for byte, with one
exception: where an attack has several runs an example (restarts, targets), several may be under way when one succeeds.
How many depends on the company, so passes, and the run, step and margin in the details, may differ there; outcomes,
metrics and what is derived from them do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robusteval.data.imageset import ImageSet
from robusteval.evaluators import EVALUATORS
from robusteval.evaluators.adversarial import AdversarialEvaluator, Asked
from robusteval.evaluators.adversarial_run import CLEAN, AdversarialRun
from robusteval.evaluators.adversarial_stages import plan_stages
from robusteval.evaluators.base import EvaluationContext, Evaluator
from robusteval.evaluators.first_right import find_first_right
from robusteval.evaluators.image_parts import decode_part
from robusteval.evaluators.journal import Part, question_of
from robusteval.evaluators.shard_file import Found, FoundPart, ShardFile
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import CellError, CorruptRecordError, UsageError
from robusteval.schema.records import Bits, Budget, Evaluation
from robusteval.schema.shards import Shard
from robusteval.schema.threats import Threat
from robusteval.schema.types import Component

Images = Callable[[ShardFile], Iterable[bytes]]
"""Gives the files of adversarial images of a share."""


def no_images(_: ShardFile) -> tuple[bytes, ...]:
    """Where no adversarial image is kept."""
    return ()


def whole_because(evaluator: Component, threat: Threat | None) -> str | None:
    """Why an evaluation is not divided; None if it can be.

    Args:
        evaluator: with resolved parameters.
        threat: threat model of the evaluation.
    """
    found = EVALUATORS.load(evaluator.name)
    return refusal(found(found.Params.model_validate(evaluator.params)), threat)


def refusal(evaluator: Evaluator[Any], threat: Threat | None) -> str | None:
    """As `whole_because`, of an evaluator that exists."""
    if not isinstance(evaluator, AdversarialEvaluator):
        return (
            f"{type(evaluator).__name__} spends few passes an example, and what it sums up over examples depends on "
            f"their order in the last bit; only adversarial evaluations are divided"
        )
    if threat is None:
        return "an adversarial evaluation needs a threat model"
    for stage in plan_stages(evaluator.params.attacks, threat, classes=2):
        if stage.attack.composition is not None:
            return (
                f"attack {stage.label!r} lets {stage.attack.composition} examples share a batch and influence each "
                f"other, so its result depends on their company"
            )
    return None


def _divisible(evaluator: Evaluator[Any], threat: Threat | None) -> AdversarialEvaluator:
    reason = refusal(evaluator, threat)
    if reason is not None:
        raise UsageError(f"this evaluation is not divided: {reason}; measure it in one piece")
    assert isinstance(evaluator, AdversarialEvaluator)
    return evaluator


def shard_positions(data: ImageSet, shard: Shard) -> NDArray[np.int64]:
    """Positions of the examples of a share, in the order of their keys."""
    first, end = shard.bounds(len(data))
    return np.argsort(data.keys, kind="stable")[first:end]


def evaluate_shard(
    evaluator: Evaluator[Any], model: Classifier, data: ImageSet, context: EvaluationContext, shard: Shard
) -> ShardFile:
    """Measure one share of `data`.

    Args:
        evaluator: what to measure.
        model: the model.
        data: all examples of the evaluation.
        context: as in `Evaluator.evaluate`, with scratch space of the share's own.
        shard: which share; it must have examples.

    Returns:
        What was found; files of adversarial images are left in the scratch space.

    Raises:
        UsageError: this evaluation cannot be divided.
        CellError: as in `Evaluator.evaluate`.
    """
    adversarial = _divisible(evaluator, context.threat)
    asked = adversarial.asked(model, data, context)
    where = shard_positions(data, shard)
    if not len(where):
        raise UsageError(f"share {shard} of {len(data)} examples has none; take at most {len(data)} shares")
    own = Asked(asked.threat, asked.views.take(where), asked.stages, asked.cuts)
    with model.frozen():
        run = adversarial.begin(own, context, find_first_right(asked.views))
        run.predict_clean()
        for stage in asked.stages:
            run.attack(stage)
        checked = run.check(asked.threat) if adversarial.params.checks and shard.index == 0 else None
    found = Found(
        question=_whole_question(adversarial, data, asked, context),
        shard=shard,
        ids=run.data.ids,
        parts={label: _found_part(run, label) for label in run.outcomes},
        budget=run.journal.budget,
        repeated=run.journal.repeated,
        flags=checked,
        images=0 if run.images is None else run.images.files,
    )
    context.progress(1.0, "done")
    return ShardFile(found, run.details.columns)


def _found_part(run: AdversarialRun, label: str) -> FoundPart:
    part = run.journal.part(label)
    stands = Bits.pack(run.in_callers_order(run.outcomes[label]))
    return FoundPart(stands=stands, symptoms=dict(part.symptoms), attacked=part.attacked)


def _whole_question(evaluator: AdversarialEvaluator, data: ImageSet, asked: Asked, context: EvaluationContext) -> str:
    order = np.lexsort((data.keys, asked.views.of))
    return question_of(evaluator.params, context, evaluator.protocol, [data.ids[place] for place in order])


def merge_shards(
    evaluator: Evaluator[Any],
    model: Classifier,
    data: ImageSet,
    context: EvaluationContext,
    shards: Sequence[ShardFile],
    images: Images = no_images,
) -> Evaluation:
    """Put all shares of an evaluation together, without a pass of the model.

    Args:
        evaluator: what was measured.
        model: the model; only its shape is looked at.
        data: all examples of the evaluation.
        context: as in `Evaluator.evaluate`; its scratch space is emptied, and filled with details and images.
        shards: every share, in any order.
        images: gives the files of adversarial images of a share.

    Raises:
        UsageError: this evaluation cannot be divided.
        CorruptRecordError: a share is about something else, is missing, or does not fit the others.
    """
    adversarial = _divisible(evaluator, context.threat)
    if context.scratch is not None:
        context.scratch.clear()
    asked = adversarial.asked(model, data, context)
    run = adversarial.begin(asked, context)
    merge = _Merge(run, shards)
    merge.check()
    merge.fill_details()
    merge.fill_images(images)
    spent = model.passes.snapshot()
    with model.frozen():
        merge.fill(CLEAN, range(len(data)))
        run.predict_clean()
        for stage in asked.stages:
            merge.fill(stage.label, run.standing(stage))
            run.attack(stage)
        flags = run.check(asked.threat) if adversarial.params.checks else ()
    if model.passes.since(spent) != Budget():
        raise CellError("the shares of this evaluation left something to be measured; run it again in one piece")
    return run.evaluation((*flags, *asked.cuts))


class _Merge:
    """The shares of one evaluation and the run that they fill.

    Args:
        run: the whole evaluation; nothing of it is measured.
        shards: its shares.
    """

    def __init__(self, run: AdversarialRun, shards: Sequence[ShardFile]) -> None:
        self.run, self.shards = run, sorted(shards, key=lambda one: one.found.shard.index)
        self._position = {name: place for place, name in enumerate(run.data.ids)}
        self._stands: dict[str, dict[str, bool]] = {}

    def check(self) -> None:
        """Refuse shares that are not exactly those of this evaluation.

        Raises:
            CorruptRecordError: one of them is about something else, or missing.
        """
        counts = {one.found.shard.count for one in self.shards}
        have = [one.found.shard.index for one in self.shards]
        if len(counts) != 1 or have != list(range(len(have))) or len(have) != max(counts):
            names = ", ".join(str(one.found.shard) for one in self.shards) or "none"
            raise CorruptRecordError(f"the shares of an evaluation are not complete; there are {names}")
        for one in self.shards:
            found = one.found
            expected = tuple(self.run.data.ids[place] for place in shard_positions(self.run.data, found.shard))
            if found.question != self.run.question or found.ids != expected:
                raise CorruptRecordError(f"share {found.shard} is of another evaluation; delete it and run again")
            if list(found.parts) != [CLEAN, *(stage.label for stage in self.run.stages)]:
                raise CorruptRecordError(f"share {found.shard} has results of other attacks; delete it and run again")
            if one.columns.keys() != self.run.details.columns.keys():
                raise CorruptRecordError(f"share {found.shard} has other details; delete it and run again")
        leader = self.shards[0].found
        if self.run.params.checks and leader.flags is None:
            raise CorruptRecordError(f"share {leader.shard} lacks the masking checks; delete it and run again")
        self._take_budget()
        for label in leader.parts:
            self._stands[label] = {
                name: stands
                for one in self.shards
                for name, stands in zip(one.found.ids, one.found.parts[label].stands.unpack(), strict=True)
            }

    def _take_budget(self) -> None:
        journal = self.run.journal
        for one in self.shards:
            journal.spend(one.found.budget)
        journal.spend(max((one.found.repeated for one in self.shards), key=lambda spent: spent.forward))
        leader = self.shards[0].found
        if leader.flags is not None:
            journal.settle_flags(leader.flags, Budget())

    def fill(self, label: str, positions: Iterable[int]) -> None:
        """Give the run what the shares found at these positions."""
        stands, ids = self._stands[label], self.run.examples.ids
        part = Part(kept=[stands[ids[position]] for position in positions])
        for one in self.shards:
            part.symptoms.update(one.found.parts[label].symptoms)
            part.attacked += one.found.parts[label].attacked
        self.run.journal.adopt(label, part)

    def fill_details(self) -> None:
        """Give the run the columns of the shares."""
        for one in self.shards:
            where = self._places(one)
            for name, values in one.columns.items():
                self.run.details.columns[name][..., where] = values
        self.run.details.save()

    def fill_images(self, images: Images) -> None:
        """Give the run the adversarial images of the shares, one file after the other."""
        kept = self.run.images
        for one in self.shards if kept is not None else ():
            assert kept is not None
            own = self.run.data.take(self._places(one))
            stages = [stage.label for stage in self.run.stages]
            for blob in images(one):
                found = decode_part(
                    blob, ids_digest=own.ids_digest, stages=stages, n=len(own), shape=own.images.shape[1:]
                )
                kept.adopt({self._position[own.ids[example]]: saved for example, saved in found.items()})

    def _places(self, one: ShardFile) -> NDArray[np.int64]:
        return np.array([self._position[name] for name in one.found.ids], dtype=np.int64)
