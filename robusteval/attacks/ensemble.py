"""AutoAttack (Croce and Hein, ICML 2020, arXiv 2003.01690) on the engine that keeps batches full.

The members, their order and their settings are those of the published versions; `autoattack-reference` runs the
authors' code instead. Differences: a run ends at its first verified success, noise belongs to (seed, example, attack,
run) instead of a place in a batch, and Square draws its windows for each example by itself. So verdicts agree up to
what another seed changes in the reference, and do not depend on batch size or order.

Two modes cost less and say less; neither is ever called `standard`:

- `two-stage` runs FAB and Square, most of the cost and rarely a success after APGD, on a random share of what APGD left
  standing. The robust accuracy is an upper bound; how many of the sample broke bounds it from below.
- `gate` is a cheap upper bound for regression tests: ten steps of apgd-ce, and ten of apgd-t against each target.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from robusteval.attacks import ATTACKS
from robusteval.attacks.base import Attack
from robusteval.attacks.cascade import QUERIES, STEPS, Cascade, CascadeParams, StageName, summed
from robusteval.models.search_plan import Precision
from robusteval.schema.params import LATER
from robusteval.schema.types import Access, Norm

Mode = Literal["full", "two-stage", "gate"]

FIRST: frozenset[StageName] = frozenset({"apgd-ce", "apgd-dlr", "apgd-t"})
"""Members of the first stage of `two-stage`, run on every example."""
SHARE = 0.1
"""Default share of the survivors that the second stage looks at."""
GATE: tuple[StageName, ...] = ("apgd-ce", "apgd-t")
GATE_STEPS = 10


class AutoAttackParams(CascadeParams):
    """Parameters of AutoAttack."""

    precision: Precision = "exact"
    """`exact` searches in float32. `fast` searches in low precision where the device has one and the model stands it;
    whatever it finds is verified in float32. FAB ends in float32 either way."""
    mode: Annotated[Mode, LATER] = "full"
    """`full` runs every member on all that still stands. `two-stage` runs FAB and Square on a random share of what APGD
    left standing and bounds the rest. `gate` runs apgd-ce and apgd-t for 10 steps each: an upper bound only."""
    share: Annotated[float, Field(gt=0, lt=1), LATER] = SHARE
    """For `two-stage` only: share of the survivors that the second stage looks at. A smaller share looks at a part of
    what a larger one looks at."""

    @model_validator(mode="after")
    def _mode_fits(self) -> Self:
        if self.mode != "two-stage" and self.share != SHARE:
            raise ValueError("'share' belongs to mode: two-stage")
        if self.mode == "gate" and self.version != "standard":
            raise ValueError("mode: gate has its own members and lengths; leave out 'version' and what belongs to it")
        if self.mode == "two-stage" and not 0 < len(FIRST & set(self.order)) < len(self.order):
            raise ValueError("mode: two-stage needs APGD for the first stage and FAB or Square for the second")
        return self

    @property
    def order(self) -> tuple[StageName, ...]:
        """The members, in order; in `two-stage` those of the first stage come first."""
        if self.mode == "gate":
            return GATE
        order = super().order
        return tuple(sorted(order, key=lambda name: name not in FIRST)) if self.mode == "two-stage" else order

    @property
    def length(self) -> int:
        """Iterations of APGD and FAB."""
        return self.steps or (GATE_STEPS if self.mode == "gate" else STEPS)

    def share_of(self, member: StageName) -> float:
        """Share of the examples left standing that a member is run on."""
        return self.share if self.mode == "two-stage" and member not in FIRST else 1.0


class AutoAttack(Cascade[AutoAttackParams]):
    """The ensemble of `apgd-ce`, `apgd-dlr`, `apgd-t`, `fab`, `fab-t` and `square`."""

    name = "autoattack"
    Params = AutoAttackParams

    @property
    def needs(self) -> Access:
        """See `Attack.needs`."""
        return Access.SCORE if set(self.params.order) == {"square"} else Access.WHITE_BOX

    def stages(self) -> tuple[Attack[Any], ...]:
        """See `Attack.stages`."""
        return tuple(self._member(name) for name in self.params.order)

    def _member(self, name: StageName) -> Attack[Any]:
        attack = ATTACKS.load(name)
        member = attack(attack.Params.model_validate(member_params(name, self.params, self.threat.norm)), self.threat)
        member.share = self.params.share_of(name)
        return member

    @classmethod
    def passes(cls, params: AutoAttackParams, classes: int) -> tuple[int, int]:
        """See `Attack.passes`; in `two-stage` the mean over the survivors."""

        def spent(name: StageName) -> tuple[int, int]:
            attack = ATTACKS.load(name)
            chosen = attack.Params.model_validate(member_params(name, params, Norm.LINF))
            forward, backward = attack.passes(chosen, classes)
            return round(forward * params.share_of(name)), round(backward * params.share_of(name))

        return summed(params.order, spent)


def member_params(name: StageName, params: AutoAttackParams, norm: Norm) -> dict[str, Any]:
    """Parameters of one member, every published setting written out."""
    if name == "square":
        return {"queries": params.queries or QUERIES, "precision": params.precision}
    own: dict[str, Any] = {"steps": params.length}
    if name in ("apgd-t", "fab-t"):
        own["targets"] = params.targets_of(name, norm)
    else:
        own["restarts"] = params.restarts_of(name, norm)
    own["precision"] = params.precision
    if name in ("fab", "fab-t"):
        return own
    return own | {"eot_iter": params.averaged, "shrinking": params.shrinks(norm)}
