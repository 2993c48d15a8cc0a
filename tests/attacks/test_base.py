from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robusteval.attacks.base import Attack, build_attack, resolve_attack
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import CellError, UnknownNameError, UsageError
from robusteval.schema.types import Access, Component, Epsilon, Frozen, Norm, ThreatModel

THREAT = ThreatModel(norm=Norm.LINF, epsilon=Epsilon("0.05"))


class NoParams(Frozen):
    pass


class Custom(Attack[NoParams]):
    """An attack whose proposal the test chooses."""

    name = "custom"
    Params = NoParams
    norms = frozenset(Norm)

    def __init__(self, propose, threat=THREAT, bounded=True):
        super().__init__(NoParams(), threat)
        self.propose = propose
        self.bounded = bounded

    def run(self, model, images, labels, *, keys, seed):
        return self.propose(model, images, labels)


def nothing(model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    return images


def state(model: Classifier) -> list[object]:
    return [
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [None if parameter.grad is None else parameter.grad.clone().tolist() for parameter in model.parameters()],
        [buffer.clone().tolist() for buffer in model.buffers()],
        [parameter.detach().clone().tolist() for parameter in model.parameters()],
    ]


def call(attack, trained, **replace):
    examples = trained.examples
    given = {"images": examples.images, "labels": examples.labels, "keys": examples.keys} | replace
    return attack(trained.model, given["images"], given["labels"], keys=given["keys"], seed=0)


def train_mode(model, images, labels):
    model.train()
    return images


def move_buffer(model, images, labels):
    next(model.buffers()).add_(1)
    dict(model.named_buffers())["network.1.running_mean"].add_(1)
    return images


def move_parameter(model, images, labels):
    with torch.no_grad():
        next(model.parameters()).mul_(1.5).div_(1.5)
    return images


def unfreeze(model, images, labels):
    next(model.parameters()).requires_grad_(True)
    return images


def leave_gradient(model, images, labels):
    parameter = next(model.parameters())
    parameter.grad = torch.ones_like(parameter)
    return images


BREACHES = {
    "returned NaN": lambda model, images, labels: images * float("nan"),
    "left the pixel box": lambda model, images, labels: images - 1.0,
    "left the linf-0.05 ball": lambda model, images, labels: (images + 0.06).clamp(0, 1),
    "instead of images of shape": lambda model, images, labels: images[:1],
    "returned list": lambda model, images, labels: [images],
    "into training mode": train_mode,
    "changed the model's buffers": move_buffer,
    "changed the parameter": move_parameter,
    "or its requires_grad flag": unfreeze,
    "left a gradient": leave_gradient,
}


@pytest.mark.parametrize("message", BREACHES)
def test_a_breach_is_an_error_that_names_the_attack_and_leaves_the_model_as_it_was(message, trained) -> None:
    buffers = [buffer.clone() for buffer in trained.model.buffers()]
    with pytest.raises(CellError, match="custom") as caught:
        call(Custom(BREACHES[message]), trained)
    assert message in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(buffers, trained.model.buffers(), strict=True))
    assert not any(module.training for module in trained.model.modules())
    assert all(parameter.requires_grad for parameter in trained.model.parameters())
    trained.model.zero_grad(set_to_none=True)


def bad_inputs(examples):
    images, labels, keys = examples.images, examples.labels, examples.keys
    nan = images.clone()
    nan[3, 0, 0, 0] = float("nan")
    normalised = images.clone()
    normalised[5] = (normalised[5] - 0.5) / 0.25 - 3
    return {
        "images have shape": {"images": images[:, :, :4]},
        "pass float32": {"images": images.double()},
        "example 3 of the batch": {"images": nan},
        "example 5 of the batch": {"images": normalised},
        "labels outside 0..9 in example 0, 10": {"labels": torch.where(labels == labels[0], 10, labels)},
        "labels must be int64": {"labels": labels.int()},
        "keys must be int64": {"keys": keys[:3]},
    }


@pytest.mark.parametrize("index", range(7))
def test_an_input_outside_the_contract_is_named(index, trained) -> None:
    message, replace = list(bad_inputs(trained.examples).items())[index]
    with pytest.raises(CellError, match="custom") as caught:
        call(Custom(nothing), trained, **replace)
    assert message.split(" in example")[0] in str(caught.value)


def test_rounding_outside_box_and_ball_is_forgiven_and_clipped(trained) -> None:
    attack = Custom(lambda model, images, labels: images + 0.05 + 1e-7)
    images = trained.examples.images.clamp(max=0.9)
    result = call(attack, trained, images=images)
    assert (result.norm <= 0.05 + 2**-24).all()


def test_an_unbounded_attack_is_clipped_into_the_ball(trained) -> None:
    threat = ThreatModel(norm=Norm.L2, epsilon=Epsilon(3))
    attack = Custom(lambda model, images, labels: images.roll(1, dims=0), threat, bounded=False)
    result = call(attack, trained)
    assert result.broken.any()
    assert (result.norm <= 3 + 1e-5).all()


def test_claims_are_not_believed_and_survivors_get_their_clean_image_back(trained) -> None:
    result = call(Custom(lambda model, images, labels: (images + 0.001).clamp(0, 1)), trained)
    assert not result.broken.any()
    assert torch.equal(result.adversarial, trained.examples.images)
    assert (result.norm == 0).all()
    assert (result.margin > 0).all()


def test_clean_errors_count_as_broken_and_are_not_attacked(trained) -> None:
    seen = []
    labels = trained.examples.labels.clone()
    labels[:5] = (labels[:5] + 1) % 10

    def spy(model, images, labels):
        seen.append(len(images))
        return images

    result = call(Custom(spy), trained, labels=labels)
    assert seen == [75]
    assert result.broken.tolist() == [True] * 5 + [False] * 75
    assert result.attacked == 75
    assert (result.margin[:5] < 0).all()


def test_the_margin_is_that_of_the_returned_image(trained) -> None:
    attack = build_attack(Component(name="pgd"), ThreatModel(norm=Norm.LINF, epsilon=Epsilon("0.045")))
    result = call(attack, trained)
    assert 0 < result.broken.sum() < 80
    with torch.no_grad():
        logits = trained.model(result.adversarial)
    rows = torch.arange(80)
    own = logits[rows, trained.examples.labels]
    logits[rows, trained.examples.labels] = -torch.inf
    assert torch.allclose(result.margin, own - logits.amax(dim=1), atol=1e-5)
    assert torch.equal(result.broken, result.margin < 0)


def test_a_model_in_training_mode_with_a_frozen_batch_norm_comes_back_so(trained) -> None:
    model = trained.model
    network = model.network
    try:
        model.train()
        network[1].eval()
        network[3].weight.requires_grad_(False)
        network[0].weight.grad = torch.ones_like(network[0].weight)
        before = state(model)
        call(build_attack(Component(name="pgd"), THREAT), trained)
        call(build_attack(Component(name="torchattacks/PGD"), THREAT), trained)
        assert state(model) == before
    finally:
        model.eval()
        model.zero_grad(set_to_none=True)
        network[3].weight.requires_grad_(True)


def test_a_radius_of_zero_finds_nothing_and_costs_two_passes(trained) -> None:
    zero = ThreatModel(norm=Norm.LINF, epsilon=Epsilon(0))
    result = call(build_attack(Component(name="autoattack-reference"), zero), trained)
    assert not result.broken.any()
    assert result.budget.forward == 80


class SometimesSilent(nn.Module):
    """Right on clean images, NaN on any other."""

    def __init__(self, clean: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.table = {image.numpy().tobytes(): int(label) for image, label in zip(clean, labels, strict=True)}

    def forward(self, images: Tensor) -> Tensor:
        rows = [self.table.get(image.detach().numpy().tobytes()) for image in images]
        logits = torch.full((len(images), 10), float("nan"))
        for position, label in enumerate(rows):
            if label is not None:
                logits[position] = nn.functional.one_hot(torch.tensor(label), 10).float()
        return logits + 0 * images.flatten(1).sum(dim=1, keepdim=True)


def test_nan_logits_are_an_error_of_the_model_and_flagged(trained) -> None:
    examples = trained.examples.take(torch.arange(10))
    model = Classifier(
        SometimesSilent(examples.images, examples.labels),
        classes=10,
        input_shape=(3, 12, 12),
        mean=[0] * 3,
        std=[1] * 3,
    )
    attack = Custom(lambda model, images, labels: (images + 0.01).clamp(0, 1))
    result = attack(model, examples.images, examples.labels, keys=examples.keys, seed=0)
    assert result.broken.all()
    assert [flag.code for flag in result.flags] == ["nan-logits"]


def test_a_threat_that_hides_gradients_only_takes_attacks_that_need_none() -> None:
    hidden = THREAT.model_copy(update={"access": Access.SCORE})
    square = {"version": "custom", "attacks": ["square"]}
    assert build_attack(Component(name="torchattacks/Square"), hidden).needs is Access.SCORE
    assert build_attack(Component(name="autoattack-reference", params=square), hidden).needs is Access.SCORE
    for name in ("pgd", "autoattack-reference", "torchattacks/PGD"):
        with pytest.raises(UsageError, match="needs white-box access and the threat grants score"):
            build_attack(Component(name=name), hidden)


def test_resolving_fills_in_every_parameter_in_canonical_form() -> None:
    resolved = resolve_attack(Component(name="pgd", params={"steps": 7, "step_size": "4/510"}), THREAT)
    assert resolved.params == {
        "steps": 7,
        "step_size": "2/255",
        "restarts": 1,
        "random_start": True,
        "loss": "ce",
    }
    assert resolve_attack(resolved, THREAT) == resolved


@pytest.mark.parametrize(
    ("component", "threat", "words"),
    [
        (Component(name="pdg"), THREAT, ["unknown attack 'pdg'", "'pgd'"]),
        (Component(name="pgd", params={"step": 3}), THREAT, ["unknown parameter 'step'", "'steps'"]),
        (Component(name="pgd", params={"steps": 0}), THREAT, ["'pgd'", "steps", "greater than 0", "is 0"]),
        (Component(name="pgd", params={"step_size": "1/0"}), THREAT, ["step_size", "divides by zero"]),
        (Component(name="pgd"), ThreatModel(norm=Norm.L1, epsilon=Epsilon(1)), ["l1", "l2, linf"]),
        (Component(name="pgd"), THREAT.model_copy(update={"targeted": True}), ["targeted: false"]),
    ],
)
def test_a_wrong_attack_is_one_line_that_says_what_is_valid(component, threat, words) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_attack(component, threat)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words)
    assert isinstance(caught.value, UnknownNameError) == (component.name == "pdg")
