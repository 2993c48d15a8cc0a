"""A budget of passes: what of an evaluation's attacks an example can afford, decided before any pass is made.

An example that survives costs each attack a known number of forward and backward passes. The attacks are paid in order;
the first that is too dear is shortened to the runs, or within its first run to the steps, that are left, and what comes
after it is left out. So no verdict depends on a clock, a batch or an interruption, and the first part of the evaluation
is the same as without a budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from robusteval.evaluators.adversarial_stages import Stage, progress_cost
from robusteval.schema.errors import UsageError
from robusteval.schema.records import Flag

RUNS = ("targets", "restarts")
"""Parameters that count the runs on an example."""
LENGTHS = ("queries", "steps")
"""Parameters that count the steps of a run."""
SINGULAR = {"targets": "target", "restarts": "restart", "queries": "query", "steps": "step"}


@dataclass(frozen=True)
class Affordable:
    """What a budget pays for.

    Attributes:
        stages: the attacks, the last one shortened where needed.
        shortened: what became of that one, such as `autoattack/apgd-t to 3 targets`.
        left_out: labels of the attacks that are not run.
    """

    stages: list[Stage]
    shortened: str | None
    left_out: list[str]

    def flags(self, budget: int) -> tuple[Flag, ...]:
        """A flag if the budget has changed anything."""
        changes = [f"shortened {self.shortened}"] if self.shortened else []
        changes += [f"left out {', '.join(self.left_out)}"] if self.left_out else []
        if not changes:
            return ()
        return (
            Flag(
                code="budget",
                severity="info",
                evidence=f"a budget of {budget} passes an example {' and '.join(changes)}",
                next_step="the robust accuracy is an upper bound; raise the budget, or leave it out",
            ),
        )


def within(budget: int, stages: Sequence[Stage], classes: int) -> Affordable:
    """Pay for the attacks in order.

    Args:
        budget: forward and backward passes together that one example may cost over all attacks.
        stages: the attacks.
        classes: number of classes of the model.

    Raises:
        UsageError: not even one step of the first attack can be paid.
    """
    left, kept, shortened = budget, list[Stage](), None
    for stage in stages:
        cost = _cost(stage, classes)
        if cost > left:
            short = _shortened(stage, left, classes)
            if short is not None:
                kept.append(short[0])
                shortened = f"{stage.label} to {short[1]}"
            break
        kept.append(stage)
        left -= cost
    if not kept:
        raise UsageError(
            f"a budget of {budget} passes an example does not pay for the shortest {stages[0].label}; "
            f"a whole one costs {_cost(stages[0], classes)}"
        )
    return Affordable(kept, shortened, [stage.label for stage in stages[len(kept) :]])


def _cost(stage: Stage, classes: int) -> int:
    return sum(stage.attack.passes(stage.attack.params, classes))


def _shortened(stage: Stage, left: int, classes: int) -> tuple[Stage, str] | None:
    """The most of an attack that can be paid, and how it was shortened."""
    changed: list[str] = []
    for name in (*RUNS, *LENGTHS):
        value = getattr(stage.attack.params, name, None)
        if not isinstance(value, int) or value <= 1:
            continue
        low, high = 1, value
        while low < high:
            middle = (low + high + 1) // 2
            if _cost(_with(stage, name, middle), classes) <= left:
                low = middle
            else:
                high = middle - 1
        stage = _with(stage, name, low)
        changed.append(f"{low} {name if low > 1 else SINGULAR[name]}")
        if _cost(stage, classes) <= left:
            return replace(stage, cost=progress_cost(stage.attack, classes)), " of ".join(reversed(changed))
    return None


def _with(stage: Stage, name: str, value: int) -> Stage:
    attack = type(stage.attack)(stage.attack.params.model_copy(update={name: value}), stage.attack.threat)
    attack.share = stage.share
    return replace(stage, attack=attack)
