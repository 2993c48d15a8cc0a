"""The journal of an adversarial evaluation: what is decided already, so that a killed run loses one batch at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from robusteval.evaluators.base import EvaluationContext
from robusteval.schema.digest import json_digest, pack_bits, unpack_bits
from robusteval.schema.params import canonical_params
from robusteval.schema.records import Budget, Flag
from robusteval.schema.types import Frozen, NonNegativeInt
from robusteval.store.scratch import Scratch

BLOB = "adversarial.json"


@dataclass
class Part:
    """One pass over some examples, such as one attack.

    Attributes:
        kept: for each example up to the first that is not done, in the order of the part, whether it is still
            classified correctly.
        symptoms: symptom to number of examples.
        attacked: number of examples that were really attacked.
        ahead: examples that are done while one before them is not: place in the part, and whether still correct.
    """

    kept: list[bool] = field(default_factory=list)
    symptoms: Counter[str] = field(default_factory=Counter)
    attacked: int = 0
    ahead: dict[int, bool] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Number of examples that are done."""
        return len(self.kept) + len(self.ahead)

    def missing(self, total: int) -> list[int]:
        """Places of the `total` examples that are not done, in order."""
        return [place for place in range(len(self.kept), total) if place not in self.ahead]


class _SavedPart(Frozen):
    """A `Part` as it is saved."""

    done: NonNegativeInt
    """Number of verdicts in `kept`."""
    kept: str
    """Packed, as in `Bits`."""
    symptoms: dict[str, NonNegativeInt]
    """Symptom to number of examples."""
    attacked: NonNegativeInt
    """Number of examples that were really attacked."""
    ahead: dict[int, bool]
    """Examples that are done while one before them is not."""


class _Saved(Frozen):
    """The journal as it is saved."""

    question: str
    """Digest of what is evaluated."""
    budget: Budget
    """Passes spent."""
    repeated: Budget = Budget()
    """Passes that every share of an evaluation spends alike."""
    flags: tuple[Flag, ...] | None
    """Flags of the masking checks, once they are settled."""
    parts: dict[str, _SavedPart]
    """Name to part."""


class Journal:
    """Parts, flags and the budget of one evaluation, saved after every batch, or every few verdicts.

    Args:
        scratch: where to save, or None to keep everything in memory.
        question: digest of what is evaluated; a journal of another question is ignored.

    Raises:
        CorruptRecordError: the saved journal cannot be read.
    """

    def __init__(self, scratch: Scratch | None, question: str) -> None:
        self._scratch = scratch
        self._question = question
        self._parts: dict[str, Part] = {}
        self.flags: list[Flag] | None = None
        self.budget = self.repeated = self._repeated = Budget()
        saved = None if scratch is None else scratch.get_json(BLOB)
        if scratch is not None and saved is not None:
            try:
                document = _Saved.model_validate(saved)
                if document.question == question:
                    self._load(document)
            except ValueError:
                raise scratch.not_understood(BLOB) from None

    def part(self, name: str) -> Part:
        """The part called `name`, empty if nothing is known of it."""
        return self._parts.setdefault(name, Part())

    def start_again(self) -> None:
        """Forget what an earlier attempt left."""
        self._parts, self.flags = {}, None
        self.budget = self.repeated = Budget()

    def settle(
        self, name: str, kept: Mapping[int, bool], symptoms: Mapping[str, int], attacked: int, spent: Budget
    ) -> None:
        """Add verdicts to a part, each at its place and in any order, and save."""
        part = self.part(name)
        part.ahead.update(kept)
        while len(part.kept) in part.ahead:
            part.kept.append(part.ahead.pop(len(part.kept)))
        part.symptoms.update(symptoms)
        part.attacked += attacked
        self.spend(spent)
        self._save()

    def settle_flags(self, flags: Sequence[Flag], spent: Budget) -> None:
        """Store the result of the masking checks and save."""
        self.flags = list(flags)
        self.spend(spent)
        self._save()

    def adopt(self, name: str, part: Part) -> None:
        """Take over a part that was decided elsewhere; saved with the next batch."""
        self._parts[name] = part

    def spend(self, spent: Budget) -> None:
        """Add passes that belong to no part; saved with the next batch."""
        self.budget = _sum(self.budget, spent)

    def spend_as_all(self, spent: Budget) -> None:
        """Add passes that every share of the evaluation spends, and that count once; saved with the next batch.

        A resumed share spends them again, and they still count once.
        """
        self._repeated = _sum(self._repeated, spent)
        self.repeated = max(self.repeated, self._repeated, key=lambda budget: budget.forward + budget.backward)

    def _save(self) -> None:
        if self._scratch is None:
            return
        self._scratch.put_json(
            BLOB,
            {
                "question": self._question,
                "budget": self.budget.model_dump(),
                "repeated": self.repeated.model_dump(),
                "flags": None if self.flags is None else [flag.model_dump() for flag in self.flags],
                "parts": {
                    name: {
                        "done": len(part.kept),
                        "kept": pack_bits(part.kept),
                        "symptoms": dict(part.symptoms),
                        "attacked": part.attacked,
                        "ahead": {str(place): kept for place, kept in part.ahead.items()},
                    }
                    for name, part in self._parts.items()
                },
            },
        )

    def _load(self, saved: _Saved) -> None:
        self.budget, self.repeated = saved.budget, saved.repeated
        self.flags = None if saved.flags is None else list(saved.flags)
        for name, part in saved.parts.items():
            self._parts[name] = Part(
                kept=unpack_bits(part.kept, part.done),
                symptoms=Counter(part.symptoms),
                attacked=part.attacked,
                ahead=dict(part.ahead),
            )


def question_of(params: Frozen, context: EvaluationContext, protocol: int, ids: Sequence[str]) -> str:
    """Digest of what is evaluated on the examples with these ids, in the order of their positions."""
    question = {
        "params": canonical_params(params),
        "threat": context.threat and context.threat.model_dump(mode="json", context={"canonical": True}),
        "seed": context.seed,
        "protocol": protocol,
        "ids": list(ids),
    }
    return json_digest(question)


def _sum(first: Budget, second: Budget) -> Budget:
    return Budget(forward=first.forward + second.forward, backward=first.backward + second.backward)
