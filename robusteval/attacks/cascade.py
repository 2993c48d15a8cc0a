"""Ensembles whose members attack one after the other, and the published versions of AutoAttack.

Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks, ICML
2020, arXiv 2003.01690; in l1: Croce and Hein, Mind the box, ICML 2021, arXiv 2103.01208.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Self, TypeVar

from pydantic import model_validator
from torch import Tensor

from robusteval.attacks.base import Attack, AttackResult, Found, OnVerdict, Standing, Verdict, judged, original_logits
from robusteval.attacks.guard import untouched
from robusteval.attacks.jobs import JobAttack
from robusteval.data.randomness import keyed_uniform
from robusteval.models.classifier import Classifier
from robusteval.models.form_building import PROBES
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
        return self._one_by_one(
            model, Standing(images, labels, keys, original_logits(model, images)), seed, None
        ).images

    def _search(self, model: Classifier, examples: Standing, seed: int, on_verdict: OnVerdict | None) -> Found:
        """Run the members, each of which verifies what it finds."""
        with untouched(self.name, model):
            return self._one_by_one(model, examples, seed, on_verdict)

    def _one_by_one(self, model: Classifier, examples: Standing, seed: int, on_verdict: OnVerdict | None) -> Found:
        found = examples.images.clone()
        margin, broken = judged(examples.logits, examples.labels)
        account = _Account(len(examples), on_verdict)
        search = SearchModel(model)
        first = examples.keys.argsort(stable=True)[:PROBES]
        for stage in self.stages():
            where = (~broken & drawn(examples.keys, stage.share, seed)).nonzero().flatten()
            if not len(where):
                continue
            if isinstance(stage, JobAttack):
                stage.search = search
                search.at(stage.precision).prepare(examples.images[first])
            result = stage(model, examples.images[where], examples.labels[where], keys=examples.keys[where], seed=seed)
            self.absorb(result)
            account.add(stage, where.tolist(), result)
            fell = where[result.broken]
            found[fell], margin[fell] = result.adversarial[result.broken], result.margin[result.broken]
            broken[fell] = True
        return Found(found, broken, margin, account.close())


class _Account:
    """Verdicts of an ensemble on N examples, put together from those of its members.

    Args:
        n: number of examples.
        on_verdict: told the verdict of an example when it breaks, or at the end.
    """

    def __init__(self, n: int, on_verdict: OnVerdict | None) -> None:
        self.on_verdict = on_verdict
        self.complete = True
        self.verdicts: list[Verdict | None] = [None] * n

    def add(self, stage: Attack[Any], where: list[int], result: AttackResult) -> None:
        """Take the verdicts of one member on the examples `where`; if it gives none, the whole gives none."""
        if len(result.verdicts) < len(where):
            self.complete = False
        if not self.complete:
            return
        for verdict in result.verdicts:
            example = where[verdict.example]
            before = self.verdicts[example]
            both = verdict if before is None else _sum(before, verdict)
            both = replace(both, example=example, attack=stage.name if verdict.broken else "")
            self.verdicts[example] = both
            if both.broken:
                self._tell(both)

    def close(self) -> tuple[Verdict, ...]:
        """Tell the survivors, and give all verdicts."""
        if not self.complete:
            return ()
        verdicts = tuple(verdict for verdict in self.verdicts if verdict is not None)
        for verdict in verdicts:
            if not verdict.broken:
                self._tell(verdict)
        return verdicts

    def _tell(self, verdict: Verdict) -> None:
        if self.on_verdict is not None:
            self.on_verdict(verdict)


def _sum(before: Verdict, verdict: Verdict) -> Verdict:
    """The later verdict with the passes and symptoms of both; a survivor's steps are those of all its members."""
    return replace(
        verdict,
        step=verdict.step if verdict.broken else before.step + verdict.step,
        forward=before.forward + verdict.forward,
        backward=before.backward + verdict.backward,
        symptoms=tuple(dict.fromkeys((*before.symptoms, *verdict.symptoms))),
    )


def drawn(keys: Tensor, share: float, seed: int) -> Tensor:
    """Which examples a member with this share is run on (B,) bool.

    Each is drawn by itself from (seed, key), so order and company change nothing, and a smaller share is a part of a
    larger one.
    """
    return keyed_uniform(keys, (1,), seed=seed, purpose="second stage").flatten() < share


def summed(members: tuple[StageName, ...], passes: Callable[[StageName], tuple[int, int]]) -> tuple[int, int]:
    """Forward and backward passes of an ensemble on an example that survives, its own verification included."""
    spent = [passes(name) for name in members]
    return sum(forward for forward, _ in spent) + 2, sum(backward for _, backward in spent)
