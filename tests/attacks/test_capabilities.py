"""One row an attack inside balls; every property is tested for every row.

The problem is linear, so the distance of each example to the decision boundary is known exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torchattacks

from robusteval.attacks import ATTACKS
from robusteval.attacks.base import Attack, AttackResult, build_attack
from robusteval.attacks.geometry import perturbation_norm
from robusteval.schema.types import Access, Component, Norm

LINF, L2, L1 = Norm.LINF, Norm.L2, Norm.L1


@dataclass(frozen=True)
class Row:
    """What one attack must do.

    Attributes:
        name: registered name.
        norms: norms it must support; every other norm must be refused.
        reach: per norm, it breaks every example nearer than this share of epsilon (0: it promises nothing).
        params: parameters that keep the test short.
        access: what it needs to see.
        stochastic: whether another seed gives other images.
    """

    name: str
    norms: tuple[Norm, ...] = (LINF,)
    reach: float | tuple[float, ...] = 0.96
    params: dict[str, Any] = field(default_factory=dict)
    access: Access = Access.WHITE_BOX
    stochastic: bool = True

    def reach_in(self, norm: Norm) -> float:
        return self.reach if isinstance(self.reach, float | int) else self.reach[self.norms.index(norm)]

    @property
    def label(self) -> str:
        return "+".join([self.name, *self.params.get("attacks", ())])


def member(name: str, reach: float | tuple[float, ...] = 0.96, **more: Any) -> Row:
    params = {"version": "custom", "attacks": [name], "steps": 20, "queries": 150, "restarts": 1}
    return Row("autoattack-reference", (LINF, L2, L1), reach, params, **more)


def foreign(name: str, norms: tuple[Norm, ...] = (LINF,), reach: float | tuple[float, ...] = 0.96, **more: Any) -> Row:
    kwargs = more.pop("kwargs", {})
    return Row(f"torchattacks/{name}", norms, reach, {"kwargs": kwargs}, **more)


FIXED = {"stochastic": False}
SCORE = {"access": Access.SCORE}
TABLE = [
    Row("fgsm", (LINF, L2), **FIXED),
    Row("pgd", (LINF, L2)),
    Row("apgd-ce", (LINF, L2, L1), params={"steps": 20, "restarts": 1}),
    Row("apgd-dlr", (LINF, L2, L1), params={"steps": 20, "restarts": 1}),
    Row("apgd-t", (LINF, L2, L1), params={"steps": 20}),
    Row("fab", (LINF, L2, L1), params={"steps": 20}, **FIXED),
    Row("fab-t", (LINF, L2, L1), params={"steps": 20}, **FIXED),
    Row("square", (LINF, L2, L1), (0.5, 0.3, 0.5), {"queries": 300}, **SCORE),
    Row("autoattack", (LINF, L2, L1), params={"version": "custom", "attacks": ["apgd-ce", "fab-t"], "steps": 20}),
    member("apgd-ce"),
    member("apgd-dlr"),
    member("apgd-t"),
    member("fab", **FIXED),
    member("fab-t", **FIXED),
    member("square", (0.3, 0.3, 0.5), **SCORE),
    foreign("VANILA", (LINF, L2, L1), 0, **FIXED),
    foreign("GN", (LINF, L2, L1), 0),
    foreign("FGSM", **FIXED),
    foreign("BIM", **FIXED),
    foreign("RFGSM"),
    foreign("PGD"),
    foreign("EOTPGD"),
    foreign("FFGSM", reach=0.7),
    foreign("TPGD", reach=0),
    foreign("MIFGSM", **FIXED),
    foreign("UPGD", **FIXED),
    foreign("APGD", (LINF, L2)),
    foreign("APGDT", (LINF, L2)),
    foreign("DIFGSM", reach=0.5),
    foreign("TIFGSM", reach=0),
    foreign("Jitter", reach=0.9),
    foreign("NIFGSM", **FIXED),
    foreign("PGDRS"),
    foreign("SINIFGSM", **FIXED),
    foreign("VMIFGSM"),
    foreign("VNIFGSM"),
    foreign("SPSA", reach=0.3, kwargs={"nb_sample": 16, "max_batch_size": 16}, **SCORE),
    foreign("PIFGSM", reach=0.9, **FIXED),
    foreign("PIFGSMPP", reach=0, **FIXED),
    foreign("CW", (L2,), 0.7, kwargs={"c": 10}, **FIXED),
    foreign("DeepFool", (L2,), **FIXED),
    foreign("PGDL2", (L2,)),
    foreign("PGDRSL2", (L2,), kwargs={"noise_batch_size": 2}),
    foreign("EADEN", (L2, L1), (0.3, 0.3), kwargs={"max_iterations": 30}, **FIXED),
    foreign("EADL1", (L1,), 0.3, kwargs={"max_iterations": 30}, **FIXED),
    foreign("SparseFool", (LINF, L2, L1), 0, **FIXED),
    foreign("OnePixel", (LINF, L2, L1), 0, kwargs={"steps": 2, "popsize": 4}, **SCORE),
    foreign("Pixle", (LINF, L2, L1), 0, kwargs={"restarts": 3}, **SCORE),
    foreign("JSMA", (LINF, L2, L1), 0, **FIXED),
    foreign("FAB", (LINF, L2), **FIXED),
    foreign("AutoAttack", (LINF,), kwargs={"version": "rand"}),
    foreign("Square", (LINF, L2), 0.3, kwargs={"n_queries": 150}, **SCORE),
]
CASES = [pytest.param((row, norm), id=f"{row.label}-{norm}") for row in TABLE for norm in row.norms]


@dataclass(frozen=True)
class Outcome:
    row: Row
    norm: Norm
    problem: Any
    attack: Attack[Any]
    first: AttackResult
    again: AttackResult
    other_seed: AttackResult
    passes_counted: tuple[int, int]
    generator_unmoved: bool


@pytest.fixture(scope="module", params=CASES)
def outcome(request, linear) -> Outcome:
    row, norm = request.param
    problem = linear(norm)
    attack = build_attack(Component(name=row.name, params=row.params), problem.threat)
    model, examples = problem.model, problem.examples

    def run(seed: int) -> AttackResult:
        return attack(model, examples.images, examples.labels, keys=examples.keys, seed=seed)

    state = torch.get_rng_state()
    start = model.passes.snapshot()
    first = run(0)
    counted = model.passes.since(start)
    return Outcome(
        row=row,
        norm=norm,
        problem=problem,
        attack=attack,
        first=first,
        again=run(0),
        other_seed=run(1),
        passes_counted=(counted.forward, counted.backward),
        generator_unmoved=torch.equal(state, torch.get_rng_state()),
    )


def test_it_breaks_what_is_in_reach_and_nothing_beyond_epsilon(outcome) -> None:
    ratios, broken = outcome.problem.ratios, outcome.first.broken
    assert not broken[ratios > 1].any()
    assert broken[ratios < outcome.row.reach_in(outcome.norm)].all()


def test_it_stays_in_ball_and_box(outcome) -> None:
    adversarial, clean = outcome.first.adversarial, outcome.problem.examples.images
    size = perturbation_norm(adversarial - clean, outcome.norm)
    assert (size <= float(outcome.problem.threat.epsilon) * (1 + 1e-5) + 1e-6).all()
    assert torch.equal(size, outcome.first.norm)
    assert ((adversarial >= 0) & (adversarial <= 1)).all()


def test_what_it_broke_is_misclassified_in_a_fresh_pass(outcome) -> None:
    examples = outcome.problem.examples
    wrong = outcome.problem.model.predict(outcome.first.adversarial) != examples.labels
    assert torch.equal(wrong, outcome.first.broken)


def test_a_seed_fixes_every_pixel_and_leaves_global_generators_alone(outcome) -> None:
    assert torch.equal(outcome.first.adversarial, outcome.again.adversarial)
    assert outcome.first.budget == outcome.again.budget
    assert outcome.generator_unmoved
    if not outcome.row.stochastic:
        assert torch.equal(outcome.first.adversarial, outcome.other_seed.adversarial)


def test_its_passes_are_counted_and_within_the_plans_estimate(outcome) -> None:
    budget, n = outcome.first.budget, len(outcome.problem.examples)
    assert (budget.forward, budget.backward) == outcome.passes_counted
    forward, backward = type(outcome.attack).passes(outcome.attack.params, outcome.problem.model.classes)
    assert 2 * n <= budget.forward <= n * forward
    assert budget.backward <= n * backward
    needs_gradient = outcome.row.access is Access.WHITE_BOX and outcome.row.name not in (
        "torchattacks/VANILA",
        "torchattacks/GN",
    )
    assert (budget.backward > 0) == needs_gradient


def test_plain_gradients_raise_no_flag(outcome) -> None:
    assert outcome.first.flags == ()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.label)
def test_other_norms_are_refused_and_access_is_declared(row, linear) -> None:
    attack = ATTACKS.load(row.name)
    left_out = {L2} if row.name == "torchattacks/AutoAttack" else set()
    assert attack.norms == frozenset(row.norms) | left_out
    component = Component(name=row.name, params=row.params)
    stages = build_attack(component, linear(row.norms[0]).threat).stages()
    assert {stage.access for stage in stages} == {row.access}


def test_every_attack_has_its_row() -> None:
    names = {row.name for row in TABLE}
    assert names >= {name for name in ATTACKS.names() if ATTACKS.load(name).norms}
    foreign_names = set(torchattacks.__all__) - set(torchattacks.__wrapper__)
    assert names >= {f"torchattacks/{name}" for name in foreign_names}
