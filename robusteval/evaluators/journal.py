"""The journal of an adversarial evaluation: what is decided already, so that a killed run loses one batch at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robusteval.schema.digest import pack_bits, unpack_bits
from robusteval.schema.records import Budget, Flag
from robusteval.store.scratch import Scratch

BLOB = "adversarial.json"


@dataclass
class Part:
    """One pass over some examples, such as one attack.

    Attributes:
        kept: for each example that is done, in the order of the part, whether it is still classified correctly.
        symptoms: symptom to number of examples.
        attacked: number of examples that were really attacked.
    """

    kept: list[bool] = field(default_factory=list)
    symptoms: Counter[str] = field(default_factory=Counter)
    attacked: int = 0


class Journal:
    """Parts, flags and the budget of one evaluation, saved after every batch.

    Args:
        scratch: where to save, or None to keep everything in memory.
        question: digest of what is evaluated; a journal of another question is ignored.
    """

    def __init__(self, scratch: Scratch | None, question: str) -> None:
        self._scratch = scratch
        self._question = question
        self._parts: dict[str, Part] = {}
        self.flags: list[Flag] | None = None
        self.budget = Budget()
        saved: Any = None if scratch is None else scratch.get_json(BLOB)
        if saved is not None and saved["question"] == question:
            self._load(saved)

    def part(self, name: str) -> Part:
        """The part called `name`, empty if nothing is known of it."""
        return self._parts.setdefault(name, Part())

    def extend(
        self, name: str, kept: Sequence[bool], symptoms: Mapping[str, int], attacked: int, spent: Budget
    ) -> None:
        """Add one batch to a part and save."""
        part = self.part(name)
        part.kept += kept
        part.symptoms.update(symptoms)
        part.attacked += attacked
        self._spend(spent)
        self._save()

    def settle_flags(self, flags: Sequence[Flag], spent: Budget) -> None:
        """Store the result of the masking checks and save."""
        self.flags = list(flags)
        self._spend(spent)
        self._save()

    def _spend(self, spent: Budget) -> None:
        self.budget = Budget(
            forward=self.budget.forward + spent.forward, backward=self.budget.backward + spent.backward
        )

    def _save(self) -> None:
        if self._scratch is None:
            return
        self._scratch.put_json(
            BLOB,
            {
                "question": self._question,
                "budget": self.budget.model_dump(),
                "flags": None if self.flags is None else [flag.model_dump() for flag in self.flags],
                "parts": {
                    name: {
                        "done": len(part.kept),
                        "kept": pack_bits(part.kept),
                        "symptoms": dict(part.symptoms),
                        "attacked": part.attacked,
                    }
                    for name, part in self._parts.items()
                },
            },
        )

    def _load(self, saved: Any) -> None:
        self.budget = Budget.model_validate(saved["budget"])
        if saved["flags"] is not None:
            self.flags = [Flag.model_validate(flag) for flag in saved["flags"]]
        for name, part in saved["parts"].items():
            self._parts[name] = Part(
                kept=unpack_bits(part["kept"], part["done"]),
                symptoms=Counter(part["symptoms"]),
                attacked=part["attacked"],
            )
