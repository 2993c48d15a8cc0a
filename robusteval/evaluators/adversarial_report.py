"""What an adversarial evaluation found, put into numbers and flags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from robusteval.evaluators.adversarial_stages import Stage
from robusteval.evaluators.masking import Tally
from robusteval.evaluators.predictions import accuracy_metric
from robusteval.schema.records import Flag, Metric
from robusteval.schema.types import Access, Component
from robusteval.stats.finite import upper_count
from robusteval.stats.intervals import clopper_pearson

ATTACKED = "attacked/"
"""Begins the outcome that says which examples an attack was run on, where it was not run on all that stood."""


@dataclass(frozen=True)
class Findings:
    """Outcomes of N examples, each list in one order.

    Attributes:
        cascade: whether each attack saw only what the earlier ones left standing.
        stages: the attacks.
        clean: predicted right.
        after: label to: still right after the attack; where it was not run, as before it.
        attacked: label to: was drawn for the attack, for those that were run on a share.
    """

    cascade: bool
    stages: Sequence[Stage]
    clean: Sequence[bool]
    after: Mapping[str, Sequence[bool]]
    attacked: Mapping[str, Sequence[bool]]

    @property
    def robust(self) -> list[bool]:
        """Right after everything."""
        return [all(stands) for stands in zip(self.clean, *self.after.values(), strict=True)]

    def metrics(self) -> Iterator[Metric]:
        """The accuracy after each attack, and what a sample of the survivors says about the rest."""
        yield accuracy_metric("accuracy", self.clean)
        word = "after" if self.cascade else "under"
        for stage in self.stages:
            yield accuracy_metric(f"accuracy_{word}/{stage.label}", self.after[stage.label])
        sample = self.second_stage()
        if sample is not None:
            yield from sample.metrics()

    def tallies(self) -> Iterator[Tally]:
        """What each stage broke beyond the white-box stages: all of them, or those before it in a cascade."""
        white = [stage.attack.access is Access.WHITE_BOX for stage in self.stages]
        after = [self.clean, *(self.after[stage.label] for stage in self.stages)]
        shared = list(self.clean)
        for is_white, outcome in zip(white, after[1:], strict=True):
            shared = [a and b for a, b in zip(shared, outcome, strict=True)] if is_white else shared
        for position, stage in enumerate(self.stages):
            compared = any(white[:position]) if self.cascade else any(white)
            before = after[position] if self.cascade else shared
            seen = self.attacked.get(stage.label, before)
            newly = sum(stood and not stays for stood, stays in zip(before, after[position + 1], strict=True))
            if compared or white[position]:
                yield Tally(stage.label, stage.attack.access, newly, sum(seen))

    def second_stage(self) -> SecondStage | None:
        """What was found on the share of the survivors that a two-stage attack looked at closely."""
        sampled = [position for position, stage in enumerate(self.stages) if stage.share < 1.0]
        if not sampled:
            return None
        labels = [stage.label for stage in self.stages]
        chosen = self.attacked[labels[sampled[0]]]
        at_the_end, robust = self.after[labels[sampled[-1]]], self.robust
        return SecondStage(
            survivors=sum(self.after[labels[sampled[0] - 1]]),
            checked=sum(chosen),
            broken=sum(one and not stands for one, stands in zip(chosen, at_the_end, strict=True)),
            unchecked=sum(stands and not one for one, stands in zip(chosen, robust, strict=True)),
            robust=sum(robust),
            n=len(robust),
        )


@dataclass(frozen=True)
class SecondStage:
    """A closer look at some of the survivors, and what it says about the others.

    Attributes:
        survivors: examples that the first stage left standing.
        checked: of these, examples that the second stage was run on.
        broken: of these, examples that it broke.
        unchecked: examples that count as robust without the second stage.
        robust: examples that count as robust.
        n: all examples.
    """

    survivors: int
    checked: int
    broken: int
    unchecked: int
    robust: int
    n: int

    @property
    def limit(self) -> int:
        """At 95 %, the second stage would break no more of the unchecked examples than this."""
        return min(self.unchecked, upper_count(self.broken, self.checked, self.survivors) - self.broken)

    def metrics(self) -> Iterator[Metric]:
        """`robust_accuracy_low`, and where anything was checked `robust_accuracy_estimate` and `second_stage_broken`.

        The interval of the estimate is about the unchecked survivors, not about the choice of the examples.
        """
        low = (self.robust - self.limit) / self.n
        yield Metric(name="robust_accuracy_low", value=low, n=self.n, interval="hypergeometric, one-sided")
        if not self.checked:
            return
        share = self.broken / self.checked
        yield Metric(
            name="robust_accuracy_estimate",
            value=(self.robust - self.unchecked * share) / self.n,
            low=low,
            high=self.robust / self.n,
            n=self.n,
            interval="hypergeometric, one-sided",
        )
        ends = clopper_pearson(self.broken, self.checked)
        yield Metric(
            name="second_stage_broken",
            value=share,
            low=ends[0],
            high=ends[1],
            n=self.checked,
            interval="clopper-pearson",
            higher_is_better=False,
        )

    def flag(self) -> Flag:
        """That the robust accuracy is an upper bound, and how far it may be off."""
        return Flag(
            code="two-stage",
            severity="info",
            evidence=f"the second stage was run on {self.checked} of {self.survivors} survivors and broke "
            f"{self.broken}; the robust accuracy {self.robust / self.n:.4f} is an upper bound, at 95 % not more than "
            f"{self.limit} of {self.n} examples too high",
            next_step="mode: full for a number that may be called standard, or a larger share for a closer bound",
        )


def mode_flags(attacks: Sequence[Component], findings: Findings) -> Iterator[Flag]:
    """What an attack left out by request."""
    sample = findings.second_stage()
    if sample is not None:
        yield sample.flag()
    if any(component.params.get("mode") == "gate" for component in attacks):
        yield Flag(
            code="gate",
            severity="info",
            evidence="a short attack for regression tests; the robust accuracy is an upper bound, and not a close one",
            next_step="mode: full before the number is compared with others",
        )
