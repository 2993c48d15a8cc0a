"""AutoAttack as its authors publish it (Croce and Hein, ICML 2020, arXiv 2003.01690), run by pyautoattack.

Attack objects are called directly, in the published order, with the published settings: the library's driver checks
models through `sys.settrace` and never verifies its result. One evaluation equals one run of the library's own
driver over the correctly classified examples in key order, with `batch_size=chunk` and the same seed.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator
from torch import Tensor

from robusteval.attacks.base import Attack
from robusteval.attacks.bridging import PlainModule, foreign, seeded
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import UsageError
from robusteval.schema.types import Access, Frozen, Norm, PositiveInt, ThreatModel

StageName = Literal["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]

VERSIONS: dict[str, tuple[StageName, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
NORM_WORDS = {Norm.LINF: "Linf", Norm.L2: "L2", Norm.L1: "L1"}
MIN_CLASSES: dict[str, int] = {"apgd-dlr": 3, "apgd-t": 4}
"""The DLR loss divides by the distance to the third largest logit, its targeted form by one to the fourth."""
MIN_SIDE = 5
"""Square starts from a grid of 5 x 5 tiles in l2 and l1."""


class AutoAttackParams(Frozen):
    """Parameters of the reference AutoAttack."""

    version: Literal["standard", "plus", "rand", "custom"] = "standard"
    """Published ensemble; `rand` averages gradients over 20 passes, for randomised models."""
    attacks: tuple[StageName, ...] = ()
    """Attacks of `custom`, in order; empty otherwise."""
    chunk: PositiveInt = 100
    """Examples attacked together, whatever the evaluator's batch size; noise depends on the place in the chunk."""
    steps: PositiveInt | None = None
    """Iterations of APGD and FAB, for `custom` only; 100 as published."""
    queries: PositiveInt | None = None
    """Queries of Square, for `custom` only; 5000 as published."""
    restarts: PositiveInt | None = None
    """Restarts of apgd-ce, apgd-dlr and fab, for `custom` only; 5 as published."""

    @model_validator(mode="after")
    def _custom_is_complete(self) -> Self:
        if self.version == "custom":
            if not self.attacks:
                raise ValueError(f"version custom needs 'attacks', some of {', '.join(VERSIONS['plus'])}")
            return self
        for name in ("attacks", "steps", "queries", "restarts"):
            if getattr(self, name):
                raise ValueError(f"{name!r} changes the published settings; write version: custom to use it")
        return self

    @property
    def order(self) -> tuple[StageName, ...]:
        """The attacks, in order."""
        return self.attacks if self.version == "custom" else VERSIONS[self.version]


class AutoAttackReference(Attack[AutoAttackParams]):
    """pyautoattack's ensemble, each member on what the earlier ones left standing."""

    name = "autoattack-reference"
    Params = AutoAttackParams
    norms = frozenset(Norm)

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

    def run(self, model: Classifier, images: Tensor, labels: Tensor, *, keys: Tensor, seed: int) -> Tensor:
        """See `Attack.run`."""
        proposed = images.clone()
        standing = labels.new_ones(labels.shape).bool()
        for stage in self.stages():
            where = standing.nonzero().flatten()
            if not len(where):
                break
            result = stage(model, images[where], labels[where], keys=keys[where], seed=seed)
            self.absorb(result)
            proposed[where[result.broken]] = result.adversarial[result.broken]
            standing[where[result.broken]] = False
        return proposed

    @classmethod
    def passes(cls, params: AutoAttackParams, classes: int) -> tuple[int, int]:
        """See `Attack.passes`."""
        spent = [_stage_passes(name, params, classes) for name in params.order]
        return sum(forward for forward, _ in spent) + 2, sum(backward for _, backward in spent)


class AutoAttackStage(Attack[AutoAttackParams]):
    """One member of the ensemble; `_stage` makes the concrete classes."""

    Params = AutoAttackParams
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
    def passes(cls, params: AutoAttackParams, classes: int) -> tuple[int, int]:
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


def _targets(member: StageName, params: AutoAttackParams, norm: Norm, classes: int) -> int:
    """Target classes of a targeted attack: nine as published, five for apgd-t in l1, never more than there are."""
    published = 5 if member == "apgd-t" and norm is Norm.L1 and params.version == "standard" else 9
    return min(published, classes - 1)


def _restarts(member: StageName, params: AutoAttackParams, norm: Norm) -> int:
    """Restarts as published: 5, but 1 in `standard` and `rand`, except for apgd-ce in l1."""
    if member in ("apgd-t", "fab-t", "square"):
        return 1
    if params.restarts is not None:
        return params.restarts
    published_once = params.version == "rand" or (params.version == "standard" and norm is not Norm.L1)
    return 1 if published_once else 5


def _library_attack(
    member: StageName, params: AutoAttackParams, threat: ThreatModel, model: Classifier, seed: int
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
        "n_restarts": _restarts(member, params, threat.norm),
    }
    plain = PlainModule(model)
    steps = params.steps or 100
    targets = _targets(member, params, threat.norm, model.classes)
    if member == "square":
        return SquareAttack(plain, p_init=0.8, n_queries=params.queries or 5000, resc_schedule=False, **common)
    if member in ("fab", "fab-t"):
        return FABAttack_PT(plain, n_iter=steps, targeted=member == "fab-t", n_target_classes=targets, **common)
    common |= {
        "n_iter": steps,
        "rho": 0.75,
        "use_largereps": threat.norm is Norm.L1 and params.version == "standard",
        "logger": _Silence(),
    }
    if member == "apgd-t":
        return APGDAttack_targeted(plain, eot_iter=1, n_target_classes=targets, **common)
    loss = "ce" if member == "apgd-ce" else "dlr"
    return APGDAttack(plain, loss=loss, eot_iter=20 if params.version == "rand" else 1, **common)


class _Silence:
    """Stands in for the library's logger: zero gradients are reported through flags instead."""

    def warning(self, message: str) -> None:
        """Drop a message."""


def _stage_passes(member: StageName, params: AutoAttackParams, classes: int) -> tuple[int, int]:
    """Passes on an example that survives, verification included (counted on pyautoattack 0.2.0)."""
    steps, targets = params.steps or 100, min(9, classes - 1)
    if member == "square":
        return (params.queries or 5000) + 5, 0
    if member == "fab-t":
        return targets * (2 * steps + 3) + 3, targets * steps
    if member == "apgd-t":
        return targets * (steps + 2) + 3, targets * (steps + 1)
    restarts = _restarts(member, params, Norm.LINF)
    if member == "fab":
        return restarts * (2 * steps + 2) + 3, restarts * classes * steps
    averaged = 20 if params.version == "rand" else 1
    return restarts * averaged * (steps + 1) + 3, restarts * averaged * (steps + 1)
