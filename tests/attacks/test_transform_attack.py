"""One row an attack on transformations; every property is tested for every row, and what lies do to the contract."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robusteval.attacks import ATTACKS
from robusteval.attacks.base import Attack, AttackResult, build_attack, resolve_attack
from robusteval.attacks.symptoms import ZERO_GRADIENT
from robusteval.attacks.transform_attack import TransformAttack
from robusteval.attacks.transforms import transform_of
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import CellError, UsageError
from robusteval.schema.threats import RecolourThreat, SpatialThreat, Threat
from robusteval.schema.types import Access, Component, Epsilon, Frozen, ThreatModel

TURN = SpatialThreat(rotation=6.5, translation=0.04)
COLOUR = RecolourThreat(epsilon=Epsilon("0.15"), grid=4)


@dataclass(frozen=True)
class Row:
    """An attack with short parameters, its threat, the same threat without room, and what the attack must see."""

    name: str
    threat: Threat
    nothing: Threat
    access: Access
    params: dict[str, Any] = field(default_factory=dict)


NO_TURN = SpatialThreat(rotation=0, translation=0)
NO_COLOUR = RecolourThreat(epsilon=Epsilon(0))
TABLE = [
    Row("spatial", TURN, NO_TURN, Access.DECISION, {"angles": 5, "shifts": 3}),
    Row("spatial", TURN, NO_TURN, Access.DECISION, {"angles": 2, "shifts": 1, "random": 6}),
    Row("spatial", TURN, NO_TURN, Access.WHITE_BOX, {"angles": 2, "shifts": 1, "random": 2, "steps": 4}),
    Row("recolour", COLOUR, NO_COLOUR, Access.WHITE_BOX, {"steps": 6}),
    Row("recolour", COLOUR, NO_COLOUR, Access.WHITE_BOX, {"steps": 3, "restarts": 2, "loss": "ce"}),
]
EACH = pytest.mark.parametrize("row", TABLE, ids=lambda row: "-".join([row.name, *map(str, row.params)]))


def made(row: Row, threat: Threat | None = None) -> Attack[Any]:
    return build_attack(Component(name=row.name, params=row.params), threat or row.threat)


def attacked(attack: Attack[Any], trained, count: int = 32, batch: int = 32, seed: int = 0) -> list[AttackResult]:
    examples = trained.examples
    parts = torch.arange(count).split(batch)
    return [
        attack(trained.model, examples.images[part], examples.labels[part], keys=examples.keys[part], seed=seed)
        for part in parts
    ]


@EACH
def test_it_breaks_some_and_what_it_broke_is_misclassified_in_a_fresh_pass(row: Row, trained) -> None:
    (result,) = attacked(made(row), trained)
    assert 0 < int(result.broken.sum()) < 32
    wrong = trained.model.predict(result.adversarial) != trained.examples.labels[:32]
    assert torch.equal(wrong, result.broken)
    assert torch.equal(result.adversarial[~result.broken], trained.examples.images[:32][~result.broken])
    assert ((result.margin < 0) == result.broken).all()


@EACH
@pytest.mark.parametrize("batch", [1, 7])
def test_verdicts_do_not_depend_on_batch_size(row: Row, batch: int, trained) -> None:
    (together,) = attacked(made(row), trained)
    parts = attacked(made(row), trained, batch=batch)
    assert torch.equal(torch.cat([part.broken for part in parts]), together.broken)
    torch.testing.assert_close(torch.cat([part.adversarial for part in parts]), together.adversarial)


@EACH
def test_a_seed_fixes_every_pixel_and_leaves_global_generators_alone(row: Row, trained) -> None:
    state = torch.get_rng_state()
    (first,), (again,) = attacked(made(row), trained), attacked(made(row), trained)
    assert torch.equal(first.adversarial, again.adversarial)
    assert torch.equal(state, torch.get_rng_state())


@EACH
def test_without_room_nothing_is_broken_and_nothing_spent_but_the_check(row: Row, trained) -> None:
    (result,) = attacked(made(row, row.nothing), trained)
    assert not result.broken.any()
    assert torch.equal(result.adversarial, trained.examples.images[:32])
    assert (result.budget.forward, result.budget.backward) == (32, 0)


@EACH
def test_passes_are_within_the_plans_estimate(row: Row, trained) -> None:
    attack = made(row)
    (result,) = attacked(attack, trained)
    forward, backward = type(attack).passes(attack.params, 10)
    assert 2 * 32 <= result.budget.forward <= 32 * forward
    assert result.budget.backward <= 32 * backward
    assert (result.budget.backward > 0) == (row.access is Access.WHITE_BOX)
    constant = Classifier(
        nn.Sequential(nn.Flatten(), Constant()), classes=10, input_shape=(3, 12, 12), mean=[0.0] * 3, std=[1.0] * 3
    )
    labels = torch.zeros(4, dtype=torch.int64)
    survivors = attack(constant, trained.examples.images[:4], labels, keys=trained.examples.keys[:4], seed=0)
    assert (survivors.budget.forward, survivors.budget.backward) == (4 * forward, 4 * backward)


class Constant(nn.Module):
    """Class 0 with certainty, and an input gradient of zero."""

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.eye(10)[:1] + 0.0 * pixels[:, :10]


@EACH
def test_a_model_without_gradients_is_flagged_if_gradients_are_used(row: Row, trained) -> None:
    model = Classifier(
        nn.Sequential(nn.Flatten(), Constant()), classes=10, input_shape=(3, 12, 12), mean=[0.0] * 3, std=[1.0] * 3
    )
    labels = torch.zeros(4, dtype=torch.int64)
    result = made(row)(model, trained.examples.images[:4], labels, keys=trained.examples.keys[:4], seed=0)
    wanted = {ZERO_GRADIENT} if row.access is Access.WHITE_BOX else set()
    assert {flag.code for flag in result.flags} == wanted


@EACH
def test_it_is_refused_in_balls_and_in_the_other_family(row: Row) -> None:
    other = COLOUR if row.name == "spatial" else TURN
    for threat in (ThreatModel(epsilon=Epsilon("0.1")), other):
        with pytest.raises(UsageError, match=f"'{row.name}' does not support the norm {threat.norm}; it supports "):
            made(row, threat)
    assert made(row).needs is row.access
    blind = row.threat.model_copy(update={"access": Access.DECISION})
    if row.access is Access.WHITE_BOX:
        with pytest.raises(UsageError, match="needs white-box access"):
            made(row, blind)
    else:
        assert made(row, blind).limits == blind


@pytest.mark.parametrize("name", ["pgd", "autoattack", "torchattacks/PGD", "square"])
def test_attacks_on_pixels_are_refused_in_families_and_told_what_to_use(name: str) -> None:
    for threat in (TURN, COLOUR):
        with pytest.raises(UsageError, match=f"does not support the norm {threat.norm}.*use attack '{threat.norm}'"):
            build_attack(Component(name=name), threat)


def test_every_attack_without_norms_has_its_row() -> None:
    assert {row.name for row in TABLE} == {name for name in ATTACKS.names() if not ATTACKS.load(name).norms}


def test_parameters_are_resolved() -> None:
    assert resolve_attack(Component(name="spatial"), TURN).params == {
        "angles": 31,
        "shifts": 5,
        "random": 0,
        "steps": 0,
    }
    assert (
        resolve_attack(Component(name="recolour", params={"step_size": "2/100"}), COLOUR).params["step_size"] == "1/50"
    )


class NoParams(Frozen):
    """Nothing."""


class Liar(TransformAttack[NoParams]):
    """Proposes what it was given."""

    name = "liar"
    Params = NoParams
    family = "spatial"
    proposal: Any = None

    def propose(self, model: Classifier, images: Tensor, labels: Tensor, *, keys: Tensor, seed: int) -> Any:
        images.zero_()
        return self.proposal


def lied(trained, proposal: Any) -> AttackResult:
    liar = Liar(NoParams(), TURN)
    liar.proposal = proposal
    return attacked(liar, trained, count=4)[0]


def test_parameters_beyond_the_limits_are_clipped_and_the_clean_image_is_the_librarys_own(trained) -> None:
    far = torch.tensor([[9.0, 0.3, -0.5]]).repeat(4, 1)
    result = lied(trained, far)
    clean = trained.examples.images[:4]
    allowed = transform_of(TURN).render(clean, far.clamp(-1, 1))
    wrong = trained.model.predict(allowed) != trained.examples.labels[:4]
    assert torch.equal(result.broken, wrong)
    assert torch.equal(result.adversarial, torch.where(wrong[:, None, None, None], allowed, clean))
    changed = (result.adversarial - clean).abs().flatten(1).amax(dim=1)
    assert torch.equal(result.norm, changed)


@pytest.mark.parametrize(
    ("proposal", "says"),
    [
        (torch.full((4, 3), float("nan")), "NaN or infinite parameters"),
        (torch.zeros(4, 2), r"returned \(4, 2\) instead of parameters of shape \(4, 3\)"),
        (torch.zeros(4, 3, 12, 12), "instead of parameters"),
        (None, "returned NoneType"),
    ],
)
def test_a_broken_proposal_is_an_error(proposal: Any, says: str, trained) -> None:
    with pytest.raises(CellError, match=says):
        lied(trained, proposal)
