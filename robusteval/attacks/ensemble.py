"""AutoAttack (Croce and Hein, ICML 2020, arXiv 2003.01690) on the engine that keeps batches full.

The members, their order and their settings are those of the published versions; `autoattack-reference` runs the
authors' code instead. Differences: a run ends at its first verified success, noise belongs to (seed, example, attack,
run) instead of a place in a batch, and Square draws its windows for each example by itself. So verdicts agree up to
what another seed changes in the reference, and do not depend on batch size or order.
"""

from __future__ import annotations

from typing import Any

from robusteval.attacks import ATTACKS
from robusteval.attacks.base import Attack
from robusteval.attacks.cascade import QUERIES, STEPS, Cascade, CascadeParams, StageName, summed
from robusteval.models.forms import Precision
from robusteval.schema.types import Access, Norm


class AutoAttackParams(CascadeParams):
    """Parameters of AutoAttack."""

    precision: Precision = "exact"
    """`exact` searches in float32. `fast` searches in low precision where the device has one and the model stands it;
    whatever it finds is verified in float32. FAB is always exact."""


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
        return attack(attack.Params.model_validate(member_params(name, self.params, self.threat.norm)), self.threat)

    @classmethod
    def passes(cls, params: AutoAttackParams, classes: int) -> tuple[int, int]:
        """See `Attack.passes`."""

        def spent(name: StageName) -> tuple[int, int]:
            attack = ATTACKS.load(name)
            chosen = attack.Params.model_validate(member_params(name, params, Norm.LINF))
            return attack.passes(chosen, classes)

        return summed(params.order, spent)


def member_params(name: StageName, params: AutoAttackParams, norm: Norm) -> dict[str, Any]:
    """Parameters of one member, every published setting written out."""
    if name == "square":
        return {"queries": params.queries or QUERIES, "precision": params.precision}
    own: dict[str, Any] = {"steps": params.steps or STEPS}
    if name in ("apgd-t", "fab-t"):
        own["targets"] = params.targets_of(name, norm)
    else:
        own["restarts"] = params.restarts_of(name, norm)
    if name in ("fab", "fab-t"):
        return own
    return own | {"eot_iter": params.averaged, "shrinking": params.shrinks(norm), "precision": params.precision}
