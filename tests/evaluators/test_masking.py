"""Synthetic masked defences: each is flagged for its own reason, and plain models are not flagged at all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robusteval.evaluators.adversarial import AdversarialEvaluator, AdversarialParams
from robusteval.evaluators.base import EvaluationContext
from robusteval.evaluators.masking import Tally, black_box_flags
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
    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        return torch.where(images.flatten(1).mean(dim=1, keepdim=True) > 0, float("nan") * logits, logits)


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


DEFENCES: dict[str, tuple[type[Wrapped], set[str]]] = {
    "softmax": (Softmax, {"softmax-output"}),
    "noise": (Noisy, {"randomised-output"}),
    "quantised": (Quantised, {"zero-gradient", "unbounded-epsilon-does-not-reach-zero"}),
    "hard votes": (HardVotes, {"zero-gradient"}),
    "batch statistics": (BatchNormalised, {"batch-dependent-output"}),
    "nan logits": (NanLogits, {"nan-logits"}),
    "nan gradient": (NanGradient, {"nan-gradient"}),
    "reversed gradient": (Misleading, {"unbounded-epsilon-does-not-reach-zero", "black-box-beats-white-box"}),
    "shattered gradient": (Shattered, {"black-box-beats-white-box"}),
}
ONLY_FOR: dict[str, set[str]] = {
    "softmax-output": {"softmax"},
    "randomised-output": {"noise"},
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


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_plain_model_has_no_flags(norm, task) -> None:
    threat = ThreatModel(norm=Norm(norm), epsilon=Epsilon({"linf": "0.03", "l2": "0.4", "l1": "3"}[norm]))
    attacks = [SQUARE] if norm == "l1" else ["pgd", SQUARE]
    assert flags(task.model, task.data, threat, attacks) == ()


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
