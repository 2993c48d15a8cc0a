"""Writing verdicts into the journal while an attack is still running."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from robusteval.attacks.base import AttackResult, Verdict
from robusteval.evaluators.journal import Journal
from robusteval.schema.records import Budget

VERDICTS = 64
"""Verdicts that are written down at the latest."""
SECONDS = 1.0
"""Time after which the next verdict is written down with those before it."""


class Clerk:
    """Hears the verdicts of one call and writes them down, a few at a time.

    After a kill the outcomes and symptoms of what was written stand, and the rest is attacked again. Passes spent on
    examples without a verdict are lost from the budget with them.

    Args:
        journal: where to write.
        name: part of the journal.
        places: place in the part of each example of the call.
        keep: given the verdicts by place before they are written.
        written: called after each writing.
    """

    def __init__(
        self,
        journal: Journal,
        name: str,
        places: Sequence[int],
        *,
        keep: Callable[[Mapping[int, Verdict]], None],
        written: Callable[[], None],
    ) -> None:
        self._journal, self._name, self._places = journal, name, places
        self._keep, self._written = keep, written
        self._pending: dict[int, Verdict] = {}
        self._heard: set[int] = set()
        self._symptoms: Counter[str] = Counter()
        self._counted = Budget()
        self._last = time.monotonic()

    def hear(self, verdict: Verdict) -> None:
        """Take a verdict."""
        self._pending[self._places[verdict.example]] = verdict
        self._heard.add(verdict.example)
        if len(self._pending) >= VERDICTS or time.monotonic() - self._last >= SECONDS:
            self._write()

    def _write(self) -> None:
        verdicts = self._pending.values()
        symptoms = Counter(name for verdict in verdicts for name in verdict.symptoms)
        spent = Budget(
            forward=sum(verdict.forward for verdict in verdicts), backward=sum(verdict.backward for verdict in verdicts)
        )
        self._keep(self._pending)
        kept = {place: not verdict.broken for place, verdict in self._pending.items()}
        self._journal.settle(self._name, kept, symptoms, len(kept), spent)
        self._symptoms.update(symptoms)
        self._counted = Budget(
            forward=self._counted.forward + spent.forward, backward=self._counted.backward + spent.backward
        )
        self._pending = {}
        self._last = time.monotonic()
        self._written()

    def close(self, result: AttackResult) -> None:
        """The call has ended: write what is left, and the passes and symptoms that belong to no verdict."""
        if self._pending:
            self._write()
        broken = result.broken.tolist()
        rest = {place: not broken[i] for i, place in enumerate(self._places) if i not in self._heard}
        symptoms = Counter(result.symptoms)
        symptoms.subtract(self._symptoms)
        self._journal.settle(
            self._name,
            rest,
            +symptoms,
            result.attacked - len(self._heard),
            Budget(
                forward=result.budget.forward - self._counted.forward,
                backward=result.budget.backward - self._counted.backward,
            ),
        )
        self._written()
