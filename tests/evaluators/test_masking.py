"""Synthetic masked defences: each is flagged for its own reason, and plain models are not flagged at all."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robusteval.attacks.gradient import ascend
from robusteval.data.batches import Batch, DeviceSet
from robusteval.evaluators.adversarial import AdversarialEvaluator, AdversarialParams
from robusteval.evaluators.base import EvaluationContext
from robusteval.evaluators.masking import (
    CHECKED,
    Spread,
    Tally,
    black_box_flags,
    convergence_flags,
    masking_flags,
)
from robusteval.evaluators.output_checks import output_flags
from robusteval.models.classifier import Classifier
from robusteval.schema.types import Access, Epsilon, Norm, ThreatModel

THREAT = ThreatModel(norm=Norm.LINF, epsilon=Epsilon("0.03"))


class Wrapped(nn.Module):
    """The trained network behind a defence."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


class Softmax(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).softmax(dim=1)


class Noisy(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        return self.network(images + 0.05 * torch.randn_like(images))


class Quantised(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        return self.network((images * 4).round() / 4)


class HardVotes(Wrapped):
    """One logit is 1 and the others 0: constant almost everywhere, but not a probability behind its scale."""

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        return 5.0 * nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1]).float() + 0 * logits


class BatchNormalised(Wrapped):
    """Centres each batch, in evaluation mode too."""

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        return logits + 0.5 * (images - images.mean(dim=0)).flatten(1)[:, : logits.shape[1]]


class NanLogits(Wrapped):
    """Answers with NaN wherever an image is no longer one of 255 levels; on the images themselves that is an error."""

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        levels = (images * 0.25 + 0.5).flatten(1) * 255
        moved = ((levels - levels.round()).abs() > 0.01).any(dim=1, keepdim=True)
        return torch.where(moved, float("nan") * logits, logits)


class NanGradient(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) + (images.flatten(1)[:, :1] * 0).sqrt()


class Misleading(Wrapped):
    """Right logits, reversed gradients."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network(2 * images.detach() - images)


class Shattered(Wrapped):
    """A high-frequency ripple of the pixels drowns the gradient."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images + 1e-3 * (images * 1e5).sin())


class Counting(Wrapped):
    """Turns its logits a little with every call."""

    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        logits = self.network(images)
        return logits + 0.3 * float(self.calls % 3) * logits.roll(1, dims=1)


class Remembering(Wrapped):
    """Adds up what it has seen; the sum does not change its answers yet."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.register_buffer("total", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.total += images.detach().sum()
        return self.network(images)


class Purifying(Wrapped):
    """Moves the image to where the network is surer before it answers."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.enable_grad():
            start = images.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.network(start).amax(dim=1).sum(), start)
        return self.network(images + 0.02 * gradient.sign())


class StubbornDropout(Wrapped):
    """Leaves its dropout on whatever it is told."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.dropout = nn.Dropout(0.1)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.dropout.train()(images))


class Loud(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        return 1000 * self.network(images)


class Quiet(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        return 1e-6 * self.network(images)


DEFENCES: dict[str, tuple[type[Wrapped], set[str]]] = {
    "softmax": (Softmax, {"softmax-output"}),
    "noise": (Noisy, {"randomised-output"}),
    "quantised": (Quantised, {"quantised-input", "zero-gradient", "unbounded-epsilon-does-not-reach-zero"}),
    "purifier": (Purifying, {"dynamic-output"}),
    "dropout left on": (StubbornDropout, {"train-mode-left-on", "randomised-output"}),
    "loud": (Loud, {"logit-scale", "zero-gradient"}),
    "quiet": (Quiet, {"logit-scale"}),
    "hard votes": (HardVotes, {"zero-gradient"}),
    "batch statistics": (BatchNormalised, {"batch-dependent-output"}),
    "nan logits": (NanLogits, {"nan-logits"}),
    "nan gradient": (NanGradient, {"nan-gradient"}),
    "reversed gradient": (Misleading, {"unbounded-epsilon-does-not-reach-zero", "black-box-beats-white-box"}),
    "shattered gradient": (Shattered, {"black-box-beats-white-box"}),
}
ONLY_FOR: dict[str, set[str]] = {
    "softmax-output": {"softmax"},
    "randomised-output": {"noise", "dropout left on"},
    "dynamic-output": {"purifier"},
    "train-mode-left-on": {"dropout left on"},
    "quantised-input": {"quantised"},
    "logit-scale": {"loud", "quiet"},
    "batch-dependent-output": {"batch statistics"},
    "nan-logits": {"nan logits"},
    "nan-gradient": {"nan gradient", "nan logits"},
}
SQUARE = {
    "name": "autoattack-reference",
    "params": {"version": "custom", "attacks": ["square"], "queries": 200},
}


def defended(task, wrapper: type[Wrapped]) -> Classifier:
    model = Classifier(
        wrapper(task.model.network), classes=6, input_shape=task.model.input_shape, mean=[0.5] * 3, std=[0.25] * 3
    )
    return model.eval()


def flags(model, data, threat=THREAT, attacks=("pgd", SQUARE)):
    params = AdversarialParams.model_validate({"attacks": list(attacks)})
    return AdversarialEvaluator(params).evaluate(model, data, EvaluationContext(threat=threat)).flags


@pytest.mark.parametrize("defence", DEFENCES)
def test_a_masked_defence_is_flagged_for_its_own_reason(defence, task) -> None:
    wrapper, expected = DEFENCES[defence]
    torch.manual_seed(0)
    wide = THREAT.model_copy(update={"epsilon": Epsilon("0.06")})
    found = {flag.code for flag in flags(defended(task, wrapper), task.data, wide)}
    assert expected <= found
    assert all(defence in ONLY_FOR.get(code, {defence}) for code in found)


def right(task) -> Batch:
    """Examples that the plain model gets right."""
    batch = DeviceSet(task.data).batch(slice(None))
    keep = (task.model.predict(batch.images) == batch.labels).nonzero().flatten()[:CHECKED]
    return DeviceSet(task.data).batch(keep)


def checked(task, model):
    return masking_flags(model, right(task), THREAT, 0)


def test_a_model_that_remembers_is_dynamic_though_its_answers_do_not_change_yet(task) -> None:
    model = defended(task, Remembering)
    with model.frozen():
        (flag,) = output_flags(model, right(task), 0)
    assert flag.code == "dynamic-output"
    assert "1 buffers: network.total" in flag.evidence


@pytest.mark.parametrize("period", [2, 3])
def test_a_model_whose_answers_alternate_is_dynamic_and_not_randomised(period, task) -> None:
    class Alternating(Wrapped):
        calls = 0

        def forward(self, images: Tensor) -> Tensor:
            self.calls += 1
            return self.network(images) * (1.0 + self.calls % period)

    model = defended(task, Alternating)
    with model.frozen():
        found = {flag.code for flag in output_flags(model, right(task), 0)}
    assert "dynamic-output" in found
    assert "randomised-output" not in found


def test_the_checks_leave_modes_buffers_and_every_random_generator_as_they_were(task) -> None:
    for wrapper in (Noisy, StubbornDropout, Remembering):
        model = defended(task, wrapper)
        before = [module.training for module in model.modules()], {k: v.clone() for k, v in model.state_dict().items()}
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
        with model.frozen():
            output_flags(model, right(task), 0)
        assert [module.training for module in model.modules()] == before[0]
        assert all(torch.equal(value, before[1][name]) for name, value in model.state_dict().items())
        assert torch.equal(torch.get_rng_state(), states[0])
        assert random.getstate() == states[1]
        assert (np.random.get_state()[1] == states[2]).all()


@pytest.mark.parametrize("source", ["random", "numpy"])
def test_a_model_that_draws_from_another_library_is_randomised(source, task) -> None:
    class Elsewhere(Wrapped):
        def forward(self, images: Tensor) -> Tensor:
            draw = random.random() if source == "random" else np.random.random()
            return self.network(images) * (1 + draw)

    found = {flag.code for flag in checked(task, defended(task, Elsewhere))}
    assert "randomised-output" in found
    assert "dynamic-output" not in found


def test_the_checks_of_a_plain_model_cost_a_bounded_number_of_passes(task) -> None:
    before = task.model.passes.snapshot()
    assert checked(task, task.model) == ()
    spent = task.model.passes.since(before)
    assert spent.forward <= 80 * CHECKED
    assert spent.backward <= 60 * CHECKED


@pytest.mark.parametrize(
    ("late", "seen", "n", "flagged"),
    [
        ((0, 0), (50, 40), 50, False),
        ((2, 0), (50, 40), 50, False),
        ((2, 1), (50, 40), 50, True),
        ((9, 10), (1000, 900), 1000, False),
        ((9, 11), (1000, 900), 1000, True),
    ],
)
def test_an_accuracy_that_still_falls_in_the_second_half_of_the_steps_is_flagged(late, seen, n, flagged) -> None:
    spreads = [Spread("apgd-ce", 100, late[0], seen[0]), Spread("square", 5000, late[1], seen[1])]
    found = convergence_flags(spreads, n)
    assert [flag.code for flag in found] == ["not-converged"] * flagged
    for flag in found:
        assert f"{sum(late)} of {n}" in flag.evidence
        assert f"square {late[1]} of {seen[1]} after step 2500 of 5000" in flag.evidence


ENGINE = [{"name": "apgd-ce", "params": {"steps": 60}}, {"name": "square", "params": {"queries": 100}}]


@pytest.fixture(scope="session")
def robust(task) -> Classifier:
    """The trained network after some adversarial training."""
    model = copy.deepcopy(task.model)
    batch = DeviceSet(task.data).batch(slice(None))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(15):
        worst = ascend(
            model, batch.images, batch.labels, norm=Norm.LINF, epsilon=0.03, step_size=0.015, steps=4, start=None
        )
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(worst), batch.labels).backward()
        optimizer.step()
    return model.eval()


def test_an_attack_that_is_cut_short_is_flagged_as_not_converged(task) -> None:
    (flag,) = flags(task.model, task.data, attacks=[{"name": "square", "params": {"queries": 100}}])
    assert flag.code == "not-converged"
    assert "after step 50 of 100" in flag.evidence


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("trained", ["plainly", "adversarially"])
def test_a_plain_model_has_no_flags(trained, norm, task, robust) -> None:
    threat = ThreatModel(norm=Norm(norm), epsilon=Epsilon({"linf": "0.03", "l2": "0.4", "l1": "3"}[norm]))
    attacks = ENGINE if norm == "l1" else ["pgd", *ENGINE]
    model = task.model if trained == "plainly" else robust
    assert flags(model, task.data, threat, attacks) == ()


def test_adversarial_training_makes_the_robust_model_robust(task, robust) -> None:
    def accuracy(model: Classifier) -> float:
        params = AdversarialParams.model_validate({"attacks": ["pgd"], "checks": False})
        return (
            AdversarialEvaluator(params).evaluate(model, task.data, EvaluationContext(threat=THREAT)).metrics[0].value
        )

    assert accuracy(robust) > accuracy(task.model) + 0.2


@pytest.mark.parametrize("seed", range(3))
def test_an_untrained_model_has_no_flags(seed, task) -> None:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(300, 40), nn.ReLU(), nn.Linear(40, 6))
    model = Classifier(layers, classes=6, input_shape=(3, 10, 10), mean=[0.5] * 3, std=[0.25] * 3).eval()
    assert flags(model, task.data, attacks=["pgd"]) == ()


def test_a_flag_carries_numbers_and_a_next_step(task) -> None:
    for wrapper, _ in DEFENCES.values():
        for flag in flags(defended(task, wrapper), task.data, attacks=["pgd"]):
            assert any(character.isdigit() for character in flag.evidence)
            assert flag.next_step


def test_non_monotone_success_is_flagged(task) -> None:
    class Trap(Wrapped):
        """Beyond half of epsilon from the pixel grid of the data, the gradient turns round."""

        def forward(self, images: Tensor) -> Tensor:
            pixels = images * 0.25 + 0.5
            level = (pixels * 255).round() / 255
            away = (pixels - level).abs().flatten(1).amax(dim=1)
            turned = self.network(2 * images.detach() - images)
            return torch.where((away < 1e-6)[:, None], self.network(images), turned)

    found = {flag.code for flag in flags(defended(task, Trap), task.data, attacks=["pgd"])}
    assert found & {"not-monotone-in-epsilon", "unbounded-epsilon-does-not-reach-zero"}


@pytest.mark.parametrize(
    ("tallies", "flagged"),
    [
        ([Tally("pgd", Access.WHITE_BOX, 40, 100), Tally("square", Access.SCORE, 5, 60)], ["square"]),
        ([Tally("pgd", Access.WHITE_BOX, 40, 100), Tally("square", Access.SCORE, 1, 60)], []),
        ([Tally("pgd", Access.WHITE_BOX, 40, 1000), Tally("square", Access.SCORE, 5, 960)], []),
        ([Tally("square", Access.SCORE, 50, 60)], []),
        ([Tally("pgd", Access.WHITE_BOX, 1, 9), Tally("boundary", Access.DECISION, 8, 8)], ["boundary"]),
    ],
)
def test_a_black_box_needs_a_white_box_and_more_than_a_stray_example(tallies, flagged) -> None:
    found = black_box_flags(tallies)
    assert [flag.code for flag in found] == ["black-box-beats-white-box"] * len(flagged)
    assert all(label in flag.evidence for label, flag in zip(flagged, found, strict=True))
