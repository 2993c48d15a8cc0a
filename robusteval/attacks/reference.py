"""AutoAttack as its authors publish it (Croce and Hein, ICML 2020, arXiv 2003.01690), run by pyautoattack.

Attack objects are called directly, in the published order, with the published settings: the library's driver checks
models through `sys.settrace` and never verifies its result. One evaluation equals one run of the library's own
driver over the correctly classified examples in key order, with `batch_size=chunk` and the same seed.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from robusteval.attacks.base import Attack
from robusteval.attacks.bridging import PlainModule, foreign, seeded
from robusteval.attacks.cascade import QUERIES, STEPS, TARGETS, Cascade, CascadeParams, StageName, summed
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import UsageError
from robusteval.schema.types import Access, Norm, PositiveInt, ThreatModel

NORM_WORDS = {Norm.LINF: "Linf", Norm.L2: "L2", Norm.L1: "L1"}
MIN_CLASSES: dict[str, int] = {"apgd-dlr": 3, "apgd-t": 4}
"""The DLR loss divides by the distance to the third largest logit, its targeted form by one to the fourth."""
MIN_SIDE = 5
"""Square starts from a grid of 5 x 5 tiles in l2 and l1."""


class AutoAttackReferenceParams(CascadeParams):
    """Parameters of the reference AutoAttack."""

    chunk: PositiveInt = 100
    """Examples attacked together, whatever the evaluator's batch size; noise depends on the place in the chunk."""


class AutoAttackReference(Cascade[AutoAttackReferenceParams]):
    """pyautoattack's ensemble, each member on what the earlier ones left standing."""

    name = "autoattack-reference"
    Params = AutoAttackReferenceParams

    @property
    def needs(self) -> Access:
        """See `Attack.needs`."""
        return Access.SCORE if set(self.params.order) == {"square"} else Access.WHITE_BOX

    def stages(self) -> tuple[Attack[Any], ...]:
        """See `Attack.stages`."""
        return tuple(_stage(name)(self.params, self.threat) for name in self.params.order)

    def check_model(self, model: Classifier) -> None:
        """See `Attack.check_model`."""
        for member in self.params.order:
            _check_model(member, self.threat, model)

    @classmethod
    def passes(cls, params: AutoAttackReferenceParams, classes: int) -> tuple[int, int]:
        """See `Attack.passes`."""
        return summed(params.order, lambda name: _stage_passes(name, params, classes))


class AutoAttackStage(Attack[AutoAttackReferenceParams]):
    """One member of the ensemble; `_stage` makes the concrete classes."""

    Params = AutoAttackReferenceParams
    norms = frozenset(Norm)
    member: ClassVar[StageName]
    """Which attack of the library."""

    def check_model(self, model: Classifier) -> None:
        """See `Attack.check_model`."""
        _check_model(self.member, self.threat, model)

    def run(self, model: Classifier, images: Tensor, labels: Tensor, *, keys: Tensor, seed: int) -> Tensor:
        """See `Attack.run`."""
        proposed = images.clone()
        for first in range(0, len(labels), self.params.chunk):
            part = slice(first, first + self.params.chunk)
            with seeded(seed), foreign(self.name):
                attack = _library_attack(self.member, self.params, self.threat, model, seed)
                proposed[part] = attack.perturb(images[part].clone(), labels[part].clone())
        return proposed

    @classmethod
    def passes(cls, params: AutoAttackReferenceParams, classes: int) -> tuple[int, int]:
        """See `Attack.passes`."""
        return _stage_passes(cls.member, params, classes)


def _stage(member: StageName) -> type[AutoAttackStage]:
    members = {
        "__doc__": f"`{member}` of pyautoattack.",
        "__module__": __name__,
        "name": f"{AutoAttackReference.name}/{member}",
        "access": Access.SCORE if member == "square" else Access.WHITE_BOX,
        "member": member,
    }
    return type(f"AutoAttack_{member.replace('-', '_')}", (AutoAttackStage,), members)


def _check_model(member: StageName, threat: ThreatModel, model: Classifier) -> None:
    """Refuse combinations that the library answers with an index error.

    Raises:
        UsageError: too few classes for the loss, or too small images.
    """
    needed = MIN_CLASSES.get(member, 2)
    if model.classes < needed:
        raise UsageError(
            f"attack 'autoattack-reference': {member} needs at least {needed} classes and the model has "
            f"{model.classes}; write version: custom with attacks: [apgd-ce, fab, square]"
        )
    height, width = model.input_shape[1:]
    if member == "square" and threat.norm is not Norm.LINF and min(height, width) < MIN_SIDE:
        raise UsageError(
            f"attack 'autoattack-reference': square in {threat.norm.value} needs images of at least "
            f"{MIN_SIDE} x {MIN_SIDE} pixels, not {height} x {width}"
        )


def _library_attack(
    member: StageName, params: AutoAttackReferenceParams, threat: ThreatModel, model: Classifier, seed: int
) -> Any:
    """The library's attack object with the settings of its driver."""
    from robusteval.models.bridges import import_pyautoattack

    import_pyautoattack()
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
    from pyautoattack.fab_pt import FABAttack_PT
    from pyautoattack.square import SquareAttack

    common = {
        "norm": NORM_WORDS[threat.norm],
        "eps": float(threat.epsilon),
        "seed": seed,
        "device": model.device,
        "verbose": False,
        "n_restarts": params.restarts_of(member, threat.norm),
    }
    plain = PlainModule(model)
    steps = params.steps or STEPS
    targets = min(params.targets_of(member, threat.norm), model.classes - 1)
    if member == "square":
        return SquareAttack(plain, p_init=0.8, n_queries=params.queries or QUERIES, resc_schedule=False, **common)
    if member in ("fab", "fab-t"):
        return FABAttack_PT(plain, n_iter=steps, targeted=member == "fab-t", n_target_classes=targets, **common)
    common |= {
        "n_iter": steps,
        "rho": 0.75,
        "use_largereps": params.shrinks(threat.norm),
        "logger": _Silence(),
    }
    if member == "apgd-t":
        return APGDAttack_targeted(plain, eot_iter=1, n_target_classes=targets, **common)
    loss = "ce" if member == "apgd-ce" else "dlr"
    return APGDAttack(plain, loss=loss, eot_iter=params.averaged, **common)


class _Silence:
    """Stands in for the library's logger: zero gradients are reported through flags instead."""

    def warning(self, message: str) -> None:
        """Drop a message."""


def _stage_passes(member: StageName, params: AutoAttackReferenceParams, classes: int) -> tuple[int, int]:
    """Passes on an example that survives, verification included (counted on pyautoattack 0.2.0)."""
    steps, targets = params.steps or STEPS, min(TARGETS, classes - 1)
    if member == "square":
        return (params.queries or QUERIES) + 5, 0
    if member == "fab-t":
        return targets * (2 * steps + 3) + 3, targets * steps
    if member == "apgd-t":
        return targets * (steps + 2) + 3, targets * (steps + 1)
    restarts = params.restarts_of(member, Norm.LINF)
    if member == "fab":
        return restarts * (2 * steps + 2) + 3, restarts * classes * steps
    spent = restarts * params.averaged * (steps + 1)
    return spent + 3, spent
