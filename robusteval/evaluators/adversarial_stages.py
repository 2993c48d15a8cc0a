"""The attacks of an adversarial evaluation, one after the other, with ensembles taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from robusteval.attacks.base import Attack, build_attack
from robusteval.schema.threats import Threat
from robusteval.schema.types import Component


@dataclass(frozen=True)
class Stage:
    """One attack of the evaluation, or one member of an ensemble.

    Attributes:
        label: name in the outcomes.
        attack: what runs.
        first: whether it is the first stage of an attack that the user listed.
        cost: passes on an example that survives, backward passes counted twice; for the progress only.
        share: share of the examples left standing that it is run on.
    """

    label: str
    attack: Attack[Any]
    first: bool
    cost: int
    share: float = 1.0

    @property
    def steps(self) -> int | None:
        """Steps of one run; None if there is no such number, or if the ball shrinks while the run goes on."""
        params = self.attack.params
        if getattr(params, "shrinking", False):
            return None
        found: int | None = getattr(params, "steps", None) or getattr(params, "queries", None)
        return found


def plan_stages(attacks: Sequence[Component], threat: Threat, classes: int) -> list[Stage]:
    """Attacks and members of ensembles in order, with distinct labels: a repeated name gets `#2`, `#3`, ..."""
    stages: list[Stage] = []
    seen: dict[str, int] = {}
    for component in attacks:
        attack = build_attack(component, threat)
        seen[component.name] = seen.get(component.name, 0) + 1
        label = component.name if seen[component.name] == 1 else f"{component.name}#{seen[component.name]}"
        members = attack.stages()
        for position, member in enumerate(members):
            suffix = f"/{member.name.rpartition('/')[2]}" if len(members) > 1 else ""
            stages.append(Stage(label + suffix, member, position == 0, progress_cost(member, classes), member.share))
    return stages


def progress_cost(attack: Attack[Any], classes: int) -> int:
    """Mean passes on an example that survives, backward passes counted twice."""
    forward, backward = attack.passes(attack.params, classes)
    return max(1, round((forward + 2 * backward) * attack.share))
