"""Ensembles whose members attack one after the other, and the published versions of AutoAttack.

Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks, ICML
2020, arXiv 2003.01690; in l1: Croce and Hein, Mind the box, ICML 2021, arXiv 2103.01208.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self, TypeVar

from pydantic import model_validator
from torch import Tensor

from robusteval.attacks.base import Attack
from robusteval.attacks.jobs import JobAttack
from robusteval.models.classifier import Classifier
from robusteval.models.search import SearchModel
from robusteval.schema.types import Frozen, Norm, PositiveInt

StageName = Literal["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
Version = Literal["standard", "plus", "rand", "custom"]

VERSIONS: dict[str, tuple[StageName, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
STEPS = 100
"""Published iterations of APGD and FAB."""
QUERIES = 5000
"""Published queries of Square."""
TARGETS = 9
"""Published target classes of a targeted attack."""
AVERAGED = 20
"""Published passes over which `rand` averages a gradient."""


class CascadeParams(Frozen):
    """Which ensemble: a published version, or a custom list of members with custom lengths."""

    version: Version = "standard"
    """Published ensemble; `rand` averages gradients over 20 passes, for randomised models."""
    attacks: tuple[StageName, ...] = ()
    """Attacks of `custom`, in order; empty otherwise."""
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
            if len(set(self.attacks)) < len(self.attacks):
                raise ValueError("'attacks' names an attack twice; raise its restarts instead")
            return self
        for name in ("attacks", "steps", "queries", "restarts"):
            if getattr(self, name):
                raise ValueError(f"{name!r} changes the published settings; write version: custom to use it")
        return self

    @property
    def order(self) -> tuple[StageName, ...]:
        """The attacks, in order."""
        return self.attacks if self.version == "custom" else VERSIONS[self.version]

    def restarts_of(self, member: StageName, norm: Norm) -> int:
        """Restarts as published: 5, but 1 in `standard` and `rand`, except for apgd-ce in l1."""
        if member in ("apgd-t", "fab-t", "square"):
            return 1
        if self.restarts is not None:
            return self.restarts
        published_once = self.version == "rand" or (self.version == "standard" and norm is not Norm.L1)
        return 1 if published_once else 5

    def targets_of(self, member: StageName, norm: Norm) -> int:
        """Target classes of a targeted attack: nine as published, five for apgd-t in l1 of `standard`."""
        return 5 if member == "apgd-t" and self.shrinks(norm) else TARGETS

    def shrinks(self, norm: Norm) -> bool:
        """Whether APGD starts in larger balls: as published in l1 of `standard` alone."""
        return norm is Norm.L1 and self.version == "standard"

    @property
    def averaged(self) -> int:
        """Passes over which APGD averages a gradient."""
        return AVERAGED if self.version == "rand" else 1


C = TypeVar("C", bound=CascadeParams)


class Cascade(Attack[C]):
    """An ensemble; each member attacks what the earlier ones left standing."""

    norms = frozenset(Norm)

    def check_model(self, model: Classifier) -> None:
        """See `Attack.check_model`."""
        for stage in self.stages():
            stage.check_model(model)

    def run(self, model: Classifier, images: Tensor, labels: Tensor, *, keys: Tensor, seed: int) -> Tensor:
        """See `Attack.run`."""
        proposed = images.clone()
        standing = labels.new_ones(labels.shape).bool()
        search = SearchModel(model)
        for stage in self.stages():
            where = standing.nonzero().flatten()
            if not len(where):
                break
            if isinstance(stage, JobAttack):
                stage.search = search
            result = stage(model, images[where], labels[where], keys=keys[where], seed=seed)
            self.absorb(result)
            proposed[where[result.broken]] = result.adversarial[result.broken]
            standing[where[result.broken]] = False
        return proposed


def summed(members: tuple[StageName, ...], passes: Callable[[StageName], tuple[int, int]]) -> tuple[int, int]:
    """Forward and backward passes of an ensemble on an example that survives, its own verification included."""
    spent = [passes(name) for name in members]
    return sum(forward for forward, _ in spent) + 2, sum(backward for _, backward in spent)
