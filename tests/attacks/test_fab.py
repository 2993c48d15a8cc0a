from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pyautoattack.fab_pt import FABAttack_PT
from torch import Tensor, nn

from robusteval.attacks.base import build_attack
from robusteval.attacks.bridging import PlainModule
from robusteval.attacks.fab import Fab, FabParams, TargetedFab, TargetedFabParams
from robusteval.attacks.geometry import perturbation_norm
from robusteval.attacks.jobs import Jobs
from robusteval.models.classifier import Classifier
from robusteval.models.search import SearchModel
from robusteval.schema.types import Component, Epsilon, Norm, ThreatModel

NAMES = ("fab", "fab-t")
WORDS = {Norm.LINF: "Linf", Norm.L2: "L2", Norm.L1: "L1"}
MIXED = {Norm.LINF: 0.045, Norm.L2: 0.75, Norm.L1: 5.0}
"""Radii at which some of the trained model's examples survive and some do not."""


def attack_of(name: str, norm: Norm, epsilon: float, **params):
    return build_attack(Component(name=name, params=params), ThreatModel(norm=norm, epsilon=Epsilon(epsilon)))


def run(attack, problem, seed: int = 0):
    examples = problem.examples
    return attack(problem.model, examples.images, examples.labels, keys=examples.keys, seed=seed)


def first(count: int, problem):
    return replace(problem, examples=problem.examples.take(torch.arange(count)))


def published(name: str, norm: Norm, epsilon: float, steps: int, problem) -> Tensor:
    """Which examples the published code breaks."""
    model, examples = problem.model, problem.examples
    attack = FABAttack_PT(
        PlainModule(model), norm=WORDS[norm], n_iter=steps, eps=epsilon, targeted=name == "fab-t", n_target_classes=9
    )
    with torch.random.fork_rng(), model.frozen():
        adversarial = attack.perturb(examples.images, examples.labels)
    size = perturbation_norm(adversarial - examples.images, norm)
    assert (size <= epsilon * (1 + 1e-6)).all()
    return model.predict(adversarial) != examples.labels


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("name", NAMES)
def test_it_breaks_what_the_published_code_breaks(name, norm, trained) -> None:
    steps, n = 8, 40
    problem = first(n, trained)
    expected = published(name, norm, MIXED[norm], steps, problem)
    found = run(attack_of(name, norm, MIXED[norm], steps=steps), problem)
    assert 0.1 * n < int(expected.sum()) < 0.9 * n
    assert not (expected & ~found.broken).any()
    assert int((found.broken & ~expected).sum()) <= 2


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("name", NAMES)
def test_on_a_linear_model_it_finds_the_smallest_perturbation_to_one_percent(name, norm, linear) -> None:
    problem = linear(norm)
    for ratio in (0.4, 1.05):
        distance = ratio * float(problem.threat.epsilon)
        just_inside = run(attack_of(name, norm, distance * 1.01, steps=6), problem)
        assert torch.equal(just_inside.broken, problem.ratios < ratio + 0.01)
        just_outside = run(attack_of(name, norm, distance * 0.99, steps=6), problem)
        assert torch.equal(just_outside.broken, problem.ratios < ratio - 0.01)


@pytest.mark.parametrize("name", NAMES)
def test_verdicts_do_not_depend_on_slots_or_order(name, trained) -> None:
    n = 32
    problem = first(n, trained)
    expected = run(attack_of(name, Norm.LINF, MIXED[Norm.LINF], steps=5), problem).broken
    assert 3 < int(expected.sum()) < n - 3
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    for slots in (5, 64):
        attack = attack_of(name, Norm.LINF, MIXED[Norm.LINF], steps=5)
        attack.slots = slots
        shuffled = replace(problem, examples=problem.examples.take(order))
        assert torch.equal(run(attack, shuffled).broken, expected[order])


def test_a_survivor_of_the_published_settings_costs_no_more_than_published() -> None:
    assert TargetedFab.passes(TargetedFabParams(), 10) <= (1828, 900)
    assert Fab.passes(FabParams(restarts=5), 10) <= (1011 * 5, 5000)


@pytest.mark.parametrize(("name", "runs", "gradients"), [("fab", 2, 9), ("fab-t", 2 * 4, 1)])
def test_a_survivor_costs_two_forward_passes_a_step_and_one_backward_pass_a_boundary(
    name, runs, gradients, trained
) -> None:
    more = {"targets": 4} if name == "fab-t" else {}
    attack = attack_of(name, Norm.L2, 1e-4, steps=3, restarts=2, **more)
    found = run(attack, first(5, trained))
    assert not found.broken.any()
    for verdict in found.verdicts:
        assert (verdict.forward, verdict.backward) == (runs * 3 * 2, runs * 3 * gradients)


def test_a_run_ends_at_the_first_misclassified_image_inside_the_ball(trained) -> None:
    found = run(attack_of("fab", Norm.LINF, 0.3), trained)
    assert found.broken.all()
    assert max(verdict.step for verdict in found.verdicts) < 30


def test_an_image_that_is_still_misclassified_when_pulled_back_counts(linear) -> None:
    problem = linear(Norm.L2)
    nearest = problem.ratios < 0.21
    # The first step overshoots to 1.5 distances, outside the ball; beta brings it back to 1.35, inside.
    epsilon = 0.2 * 1.4 * float(problem.threat.epsilon)
    one, two = (
        run(attack_of("fab", Norm.L2, epsilon, steps=steps, eta=1.5, alpha_max=0.0), problem) for steps in (1, 2)
    )
    assert not one.broken.any()
    assert torch.equal(two.broken, nearest)


@pytest.mark.parametrize("name", NAMES)
def test_restarts_only_add_broken_examples(name, trained) -> None:
    problem = first(32, trained)
    one, three = (run(attack_of(name, Norm.L2, 0.7, steps=3, restarts=count), problem) for count in (1, 3))
    assert (three.broken | ~one.broken).all()
    assert one.broken.any()
    assert not three.broken.all()


@pytest.mark.parametrize("norm", Norm)
def test_the_first_restart_begins_at_the_image_and_the_others_half_a_radius_away(norm, trained) -> None:
    images = torch.full((4, 3, 12, 12), 0.5)
    labels = torch.zeros(4, dtype=torch.int64)
    jobs = Jobs(images, labels, torch.tensor([5, 5, 5, 6]), torch.tensor([0, 1, 2, 1]), torch.zeros(4, 10))
    attack = attack_of("fab", norm, 0.4, restarts=3)
    assert isinstance(attack, Fab)
    start = attack.begin(SearchModel(trained.model), jobs, seed=0)["current"]
    assert torch.allclose(perturbation_norm(start - images, norm), torch.tensor([0.0, 0.2, 0.2, 0.2]), atol=1e-6)
    assert len({tuple(image.flatten().tolist()) for image in start}) == 4


def test_two_classes_are_enough(trained) -> None:
    torch.manual_seed(0)
    model = Classifier(
        nn.Sequential(nn.Flatten(), nn.Linear(432, 16), nn.ReLU(), nn.Linear(16, 2)),
        classes=2,
        input_shape=(3, 12, 12),
        mean=[0.5] * 3,
        std=[0.25] * 3,
    ).eval()
    examples = replace(trained.examples, labels=model.predict(trained.examples.images))
    problem = replace(trained, model=model, examples=examples)
    targeted, untargeted = (run(attack_of(name, Norm.L2, 0.2, steps=10), problem) for name in NAMES)
    assert 0 < int(targeted.broken.sum()) < len(examples)
    assert torch.equal(targeted.broken, untargeted.broken)


class Masked(nn.Module):
    """Gradients that are zero (`round`) or NaN (`root`), behind a linear layer that works."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer = nn.Linear(108, 10)

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        if self.kind == "round":
            return self.layer((flat * 4).round() / 4)
        return self.layer(flat + (flat * 0.0).sqrt())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("kind", "symptom"), [("round", "zero-gradient"), ("root", "nan-gradient")])
def test_useless_gradients_break_nothing_and_are_reported(name, kind, symptom) -> None:
    torch.manual_seed(0)
    model = Classifier(Masked(kind), classes=10, input_shape=(3, 6, 6), mean=[0.0] * 3, std=[1.0] * 3).eval()
    images = torch.rand(6, 3, 6, 6)
    attack = attack_of(name, Norm.LINF, 1e-4, steps=3)
    found = attack(model, images, model.predict(images), keys=torch.arange(6), seed=0)
    assert not found.broken.any()
    assert dict(found.symptoms) == {symptom: 6}
