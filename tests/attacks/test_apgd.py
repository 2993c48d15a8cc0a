from __future__ import annotations

import math
import warnings

import pyautoattack.autopgd_base
import pytest
import torch
from torch import nn

from robusteval.attacks.apgd import ApgdCe, ApgdDlr, ApgdT
from robusteval.attacks.base import build_attack
from robusteval.attacks.bridging import PlainModule
from robusteval.attacks.gradient import ascend, cross_entropy
from robusteval.attacks.jobs import Jobs
from robusteval.data.digits import Digits, DigitsParams
from robusteval.models.build import build_classifier
from robusteval.models.classifier import Classifier
from robusteval.models.search import SearchModel
from robusteval.schema.errors import UsageError
from robusteval.schema.types import Component, Epsilon, Norm, ThreatModel

WORDS = {Norm.LINF: "Linf", Norm.L2: "L2", Norm.L1: "L1"}
MIXED = {Norm.LINF: "0.12", Norm.L2: "1.3", Norm.L1: "9"}
"""Radii at which about half of the robust model's examples survive."""
KINDS = {"apgd-ce": ApgdCe, "apgd-dlr": ApgdDlr, "apgd-t": ApgdT}
COUNT = 60


@pytest.fixture(scope="session")
def robust():
    """A small CNN, adversarially trained on the digits, with examples that it gets right and their keys."""
    digits = Digits(DigitsParams())

    def tensors(part):
        examples = digits.load("upright", part)
        return torch.from_numpy(examples.images).float() / 255, torch.from_numpy(examples.labels).long()

    images, labels = tensors("train")
    model = build_classifier(
        Component(name="small-cnn", params={"width": 8}),
        classes=10,
        input_shape=(3, 16, 16),
        mean=digits.mean,
        std=digits.std,
        seed=0,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        for part in torch.randperm(len(labels), generator=generator).split(64):
            worst = ascend(model, images[part], labels[part], norm=Norm.LINF, epsilon=0.1, step_size=0.06, steps=2)
            optimizer.zero_grad()
            cross_entropy(model(worst), labels[part]).mean().backward()
            optimizer.step()
    model.eval()
    model.zero_grad(set_to_none=True)
    images, labels = tensors("test")
    right = (model.predict(images) == labels).nonzero().flatten()[:COUNT]
    assert len(right) == COUNT
    return model, images[right], labels[right], torch.arange(COUNT)


def threat_of(norm, epsilon=None) -> ThreatModel:
    return ThreatModel(norm=norm, epsilon=Epsilon(epsilon or MIXED[norm]))


def attack_of(name, norm, epsilon=None, **params):
    return build_attack(Component(name=name, params=params), threat_of(norm, epsilon))


def reference(name, problem, norm, *, seed=0, epsilon=None, targets=1, shrinking=False, steps=100):
    """Verdicts of pyautoattack's own attack, one restart, all examples in one batch."""
    model, images, labels, _ = problem
    settings = {
        "norm": WORDS[norm],
        "eps": float(Epsilon(epsilon or MIXED[norm])),
        "seed": seed,
        "device": "cpu",
        "n_iter": steps,
        "n_restarts": 1,
        "use_largereps": shrinking,
    }
    with torch.random.fork_rng(), model.frozen(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "apgd-t":
            attack = pyautoattack.autopgd_base.APGDAttack_targeted(
                PlainModule(model), n_target_classes=targets, **settings
            )
        else:
            attack = pyautoattack.autopgd_base.APGDAttack(PlainModule(model), loss=name[5:], **settings)
        before = model.passes.snapshot()
        adversarial = attack.perturb(images.clone(), labels.clone())
        budget = model.passes.since(before)
        return model.predict(adversarial) != labels, budget


def reference_noise(norm, images, seed=0):
    """What pyautoattack draws for its first run on one batch."""
    generator = torch.Generator().manual_seed(seed)
    if norm is Norm.LINF:
        return 2 * torch.rand(images.shape, generator=generator) - 1
    return torch.randn(images.shape, generator=generator)


CASES = [
    *[(name, norm, False) for norm in (Norm.LINF, Norm.L2) for name in KINDS],
    ("apgd-ce", Norm.L1, False),
    ("apgd-t", Norm.L1, True),
    ("apgd-dlr", Norm.L1, True),
]


@pytest.mark.parametrize(("name", "norm", "shrinking"), CASES)
def test_from_the_references_noise_the_references_examples_break(name, norm, shrinking, robust, monkeypatch) -> None:
    model, images, labels, keys = robust
    # The reference counts a pixel as changed when it differs from its clean value by rounding alone.
    monkeypatch.setattr(pyautoattack.autopgd_base, "L0_norm", lambda delta: (delta.abs() > 1e-6).flatten(1).sum(dim=1))
    noise = reference_noise(norm, images)

    class FromTheirNoise(KINDS[name]):
        def noise(self, jobs, seed):
            return noise[jobs.keys]

    params = KINDS[name].Params(shrinking=shrinking, **({"targets": 1} if name == "apgd-t" else {"restarts": 1}))
    broken = FromTheirNoise(params, threat_of(norm))(model, images, labels, keys=keys, seed=0).broken
    expected, _ = reference(name, robust, norm, shrinking=shrinking)
    assert 10 < int(expected.sum()) < COUNT - 10
    assert torch.equal(broken, expected)


@pytest.mark.parametrize(("name", "norm"), [("apgd-ce", Norm.LINF), ("apgd-dlr", Norm.LINF), ("apgd-ce", Norm.L2)])
def test_from_the_references_noise_the_best_losses_are_the_references(name, norm, robust) -> None:
    model, images, labels, keys = robust
    attack, noise = attack_of(name, norm, steps=40), reference_noise(norm, images)
    attack.noise = lambda jobs, seed: noise
    search = SearchModel(model)
    with model.frozen():
        state = attack.begin(search, Jobs(images, labels, keys, torch.zeros_like(labels), model(images)), 0)
        for _ in range(40):
            attack.step(search, state)
        best = torch.maximum(state["best_loss"], attack.loss(model(state["current"]), state))
    library = pyautoattack.autopgd_base.APGDAttack(
        PlainModule(model), n_iter=40, norm=WORDS[norm], eps=float(attack.threat.epsilon), loss=name[5:], device="cpu"
    )
    library.init_hyperparam(images)
    with torch.random.fork_rng(), model.frozen(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        expected = library.attack_single_run(images, labels)[2]
    # Rounding decides the sign of a few gradients, and that a few walks part.
    assert float(((best - expected).abs() <= 1e-4 * (1 + expected.abs())).float().mean()) > 0.85


@pytest.mark.parametrize("norm", list(Norm))
def test_no_more_verdicts_are_lost_than_two_seeds_of_the_reference_differ(norm, robust) -> None:
    model, images, labels, keys = robust
    first, second = (reference("apgd-ce", robust, norm, seed=seed, steps=50)[0] for seed in (0, 1))
    attack = attack_of("apgd-ce", norm, steps=50, restarts=1, shrinking=False)
    ours = [attack(model, images, labels, keys=keys, seed=seed).broken for seed in (0, 1)]
    assert 10 < int(first.sum()) < COUNT - 10
    assert int((first & second & ~ours[0] & ~ours[1]).sum()) <= int((first ^ second).sum())
    assert abs(int(first.sum() + second.sum()) - int(ours[0].sum() + ours[1].sum())) <= 6


@pytest.mark.parametrize(
    ("name", "norm", "params"),
    [
        ("apgd-ce", Norm.LINF, {"restarts": 2}),
        ("apgd-dlr", Norm.L2, {}),
        ("apgd-t", Norm.LINF, {"targets": 3}),
        ("apgd-t", Norm.L1, {"targets": 2}),
    ],
)
def test_verdicts_do_not_depend_on_slots_or_order(name, norm, params, robust) -> None:
    model, images, labels, keys = (part[:24] if torch.is_tensor(part) else part for part in robust)
    attack = attack_of(name, norm, steps=12, **params)
    expected = attack(model, images, labels, keys=keys, seed=0)
    assert 3 < int(expected.broken.sum()) < 21
    orders = [torch.arange(24), torch.randperm(24, generator=torch.Generator().manual_seed(1))]
    for slots, order in ((1, orders[0]), (7, orders[0]), (32, orders[1]), (128, orders[1])):
        packed = type("Packed", (KINDS[name],), {"slots": slots})(attack.params, attack.threat)
        broken = packed(model, images[order], labels[order], keys=keys[order], seed=0).broken
        assert torch.equal(broken, expected.broken[order])


@pytest.mark.parametrize(("name", "params"), [("apgd-ce", {}), ("apgd-t", {"targets": 3})])
def test_survivors_cost_no_more_than_in_the_reference(name, params, robust) -> None:
    model, images, labels, keys = robust
    attack = attack_of(name, Norm.LINF, "1e-4", steps=20, **params)
    result = attack(model, images, labels, keys=keys, seed=0)
    broken, theirs = reference(name, robust, Norm.LINF, epsilon="1e-4", targets=3, steps=20)
    assert not broken.any()
    assert not result.broken.any()
    runs = 3 if name == "apgd-t" else 1
    assert (theirs.forward, theirs.backward) == (COUNT * (runs * 21 + 1 + (runs if runs > 1 else 0)), COUNT * runs * 21)
    # The library judges every example twice, and looks at up to 16 images to choose the form of the network.
    assert result.budget.forward <= theirs.forward + 2 * COUNT + 3 * 16
    assert result.budget.backward <= theirs.backward
    forward, backward = type(attack).passes(attack.params, 10)
    assert result.budget.forward <= COUNT * forward
    assert result.budget.backward <= COUNT * backward


def test_the_gradient_of_the_last_iterate_is_not_computed(robust) -> None:
    model, images, labels, keys = robust
    attack = attack_of("apgd-ce", Norm.LINF, "1e-4", steps=10)
    assert attack(model, images, labels, keys=keys, seed=0).budget.backward == COUNT * 10


def test_averaging_over_equal_gradients_changes_nothing_but_the_cost(robust) -> None:
    model, images, labels, keys = robust
    once = attack_of("apgd-ce", Norm.LINF, "0.05", steps=10)(model, images, labels, keys=keys, seed=0)
    twice = attack_of("apgd-ce", Norm.LINF, "0.05", steps=10, eot_iter=2)(model, images, labels, keys=keys, seed=0)
    assert torch.equal(once.adversarial, twice.adversarial)
    assert twice.budget.backward == 2 * once.budget.backward


def test_what_is_left_open_is_settled_as_published() -> None:
    published = {"steps": 100, "rho": 0.75, "eot_iter": 1, "shrinking": False, "restarts": 1}
    assert attack_of("apgd-ce", Norm.LINF).params.model_dump().items() >= published.items()
    in_l1 = attack_of("apgd-ce", Norm.L1).params
    assert (in_l1.restarts, in_l1.shrinking) == (5, True)
    assert attack_of("apgd-ce", Norm.L1, restarts=2, shrinking=False).params.restarts == 2
    assert attack_of("apgd-t", Norm.L1).params.targets == 5
    targeted = attack_of("apgd-t", Norm.L2)
    assert [targeted.runs(classes) for classes in (2, 3, 10, 100)] == [1, 2, 9, 9]
    with pytest.raises(UsageError, match="shrinking is for the norm l1, not l2"):
        attack_of("apgd-ce", Norm.L2, shrinking=True)


def test_the_published_l1_attack_costs_what_the_reference_says(robust) -> None:
    attack = attack_of("apgd-ce", Norm.L1)
    assert type(attack).passes(attack.params, 10) == (515 + 3, 515)
    targeted = attack_of("apgd-t", Norm.LINF)
    assert type(targeted).passes(targeted.params, 10) == (909 + 3, 909)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", ["apgd-dlr", "apgd-t"])
def test_with_few_classes_it_breaks_exactly_what_lies_in_reach(name, classes) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, generator=generator)
    layer = nn.Linear(48, classes)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0], layer.weight[1] = weight / 2, -weight / 2
        layer.bias.copy_(torch.tensor([0.0, 0.0, -20.0])[:classes])
    model = Classifier(
        nn.Sequential(nn.Flatten(), layer), classes=classes, input_shape=(3, 4, 4), mean=[0.0] * 3, std=[1.0] * 3
    )
    ratios = torch.tensor([0.3, 0.9, 0.97, 1.03, 1.5])
    raw = 0.5 + 0.05 * (2 * torch.rand(5, 48, generator=generator) - 1)
    wanted = 0.02 * weight.abs().sum() * ratios
    images = raw + ((wanted - raw @ weight) / weight.norm() ** 2)[:, None] * weight
    result = attack_of(name, Norm.LINF, "0.02", steps=20)(
        model, images.view(5, 3, 4, 4), torch.zeros(5, dtype=torch.int64), keys=torch.arange(5), seed=0
    )
    assert torch.equal(result.broken, ratios < 1)


class Undefined(nn.Module):
    """Finite logits whose gradient is NaN everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 4)

    def forward(self, images):
        flat = images.flatten(1)
        return self.linear(flat) + (flat[:, :1] * 0).sqrt()


class Rounded(Undefined):
    """A linear layer behind a staircase: the gradient is zero everywhere."""

    def forward(self, images):
        return self.linear((images * 10).round().flatten(1) / 10)


@pytest.mark.parametrize(("network", "code"), [(Rounded, "zero-gradient"), (Undefined, "nan-gradient")])
@pytest.mark.parametrize("name", list(KINDS))
@pytest.mark.parametrize("norm", list(Norm))
def test_broken_gradients_are_flagged_and_never_leave_the_box(network, code, name, norm) -> None:
    torch.manual_seed(0)
    model = Classifier(network(), classes=4, input_shape=(3, 2, 2), mean=[0] * 3, std=[1] * 3)
    images = torch.rand(20, 3, 2, 2)
    labels = model.predict(images)
    result = attack_of(name, norm, "1e-3", steps=5)(model, images, labels, keys=torch.arange(20), seed=0)
    assert [flag.code for flag in result.flags] == [code]
    assert math.isfinite(float(result.adversarial.sum()))
