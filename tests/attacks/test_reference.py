from __future__ import annotations

import logging

import pyautoattack
import pyautoattack.autoattack
import pytest
import torch
from torch import nn

from robusteval.attacks.base import build_attack, resolve_attack
from robusteval.attacks.bridging import PlainModule
from robusteval.attacks.cascade import VERSIONS
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import CellError, UsageError
from robusteval.schema.types import Component, Epsilon, Norm, ThreatModel

WORDS = {Norm.LINF: "Linf", Norm.L2: "L2", Norm.L1: "L1"}


@pytest.fixture(scope="module")
def network() -> Classifier:
    """Ten classes, random weights, one hidden layer: margins of all sizes."""
    torch.manual_seed(1)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(108, 24), nn.ReLU(), nn.Linear(24, 10))
    return Classifier(layers, classes=10, input_shape=(3, 6, 6), mean=[0.5] * 3, std=[0.25] * 3).eval()


def problem(network, count=10):
    torch.manual_seed(2)
    images = torch.rand(count, 3, 6, 6)
    return images, network.predict(images), torch.arange(count)


def library_verdicts(network, images, labels, norm, epsilon, monkeypatch, **options):
    """Robust flags of the library's own driver; without its model checks, which take over sys.settrace."""
    monkeypatch.setattr(pyautoattack.autoattack.checks, "check_dynamic", lambda *args, **kwargs: None)
    configure = options.pop("configure", lambda driver: None)
    with torch.random.fork_rng(), network.parameters_frozen():
        driver = pyautoattack.AutoAttack(PlainModule(network), norm=WORDS[norm], eps=epsilon, seed=0, **options)
        configure(driver)
        adversarial, _ = driver.run_standard_evaluation(images, labels, batch_size=100)
    return network.predict(adversarial) != labels, adversarial


def shorten(driver) -> None:
    """10 iterations and 100 queries."""
    for attack in (driver.apgd, driver.apgd_targeted):
        attack.n_iter, attack.n_iter_orig = 10, 10
        attack.n_iter_2, attack.n_iter_min, attack.size_decr = 2, 1, 1
    driver.fab.n_iter, driver.square.n_queries = 10, 100


@pytest.mark.parametrize(("norm", "epsilon"), [(Norm.LINF, 0.02), (Norm.L2, 0.15), (Norm.L1, 0.8)])
def test_the_cascade_equals_the_librarys_own_driver(norm, epsilon, network, monkeypatch) -> None:
    images, labels, keys = problem(network)
    members = list(VERSIONS["plus"])
    expected, adversarial = library_verdicts(
        network, images, labels, norm, epsilon, monkeypatch, version="custom", attacks=members, configure=shorten
    )
    attack = build_attack(
        Component(
            name="autoattack-reference", params={"version": "custom", "attacks": members, "steps": 10, "queries": 100}
        ),
        ThreatModel(norm=norm, epsilon=Epsilon(epsilon)),
    )
    result = attack(network, images, labels, keys=keys, seed=0)
    assert 2 <= int(expected.sum()) <= 8
    assert torch.equal(result.broken, expected)
    assert torch.allclose(result.adversarial, adversarial, atol=1e-6)


def settings(attack, network):
    """Settings of the library's objects that define the ensemble."""
    from robusteval.attacks.reference import _library_attack

    found = {}
    for member in attack.params.order:
        made = _library_attack(member, attack.params, attack.threat, network, 0)
        names = ("n_iter", "n_restarts", "n_target_classes", "n_queries", "eot_iter", "use_largereps", "loss")
        found[member] = {name: getattr(made, name) for name in names if hasattr(made, name)}
        if member.startswith("fab"):
            found[member]["targeted"] = made.targeted
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("norm", list(Norm))
def test_every_member_has_the_settings_of_the_librarys_driver(version, norm, network) -> None:
    attack = build_attack(
        Component(name="autoattack-reference", params={"version": version}), ThreatModel(norm=norm, epsilon=Epsilon(1))
    )
    driver = pyautoattack.AutoAttack(PlainModule(network), norm=WORDS[norm], eps=1.0, version=version)
    assert list(attack.params.order) == driver.attacks_to_run
    objects = {
        "apgd-ce": driver.apgd,
        "apgd-dlr": driver.apgd,
        "apgd-t": driver.apgd_targeted,
        "fab": driver.fab,
        "fab-t": driver.fab,
        "square": driver.square,
    }
    set_at_run_time = {"fab-t": {"n_restarts", "targeted"}, "apgd-ce": {"loss"}, "apgd-dlr": {"loss"}}
    for member, found in settings(attack, network).items():
        for name, value in found.items():
            if name not in set_at_run_time.get(member, ()):
                assert getattr(objects[member], name) == value, (member, name)
    assert settings(attack, network).get("fab-t", {"n_restarts": 1, "targeted": True})["n_restarts"] == 1


def test_members_report_one_by_one_and_only_see_what_stands(network) -> None:
    images, labels, keys = problem(network)
    attack = build_attack(
        Component(
            name="autoattack-reference",
            params={"version": "custom", "attacks": ["apgd-ce", "square"], "steps": 20, "queries": 50},
        ),
        ThreatModel(norm=Norm.LINF, epsilon=Epsilon("0.02")),
    )
    names = [stage.name for stage in attack.stages()]
    assert names == ["autoattack-reference/apgd-ce", "autoattack-reference/square"]
    standing = torch.ones(len(labels), dtype=torch.bool)
    for stage in attack.stages():
        where = standing.nonzero().flatten()
        standing[where] = ~stage(network, images[where], labels[where], keys=keys[where], seed=0).broken
    whole = attack(network, images, labels, keys=keys, seed=0)
    assert torch.equal(standing, ~whole.broken)


def test_a_large_input_is_cut_into_chunks(network) -> None:
    images, labels, keys = problem(network)
    params = {"version": "custom", "attacks": ["apgd-ce"], "steps": 10, "restarts": 1, "chunk": 4}
    attack = build_attack(
        Component(name="autoattack-reference", params=params), ThreatModel(norm=Norm.LINF, epsilon=Epsilon("0.02"))
    )
    whole = attack(network, images, labels, keys=keys, seed=0)
    parts = [
        attack(network, images[i : i + 4], labels[i : i + 4], keys=keys[i : i + 4], seed=0).adversarial
        for i in (0, 4, 8)
    ]
    assert torch.equal(whole.adversarial, torch.cat(parts))


def few_classes(classes: int, side: int = 6) -> Classifier:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * side * side, classes))
    return Classifier(layers, classes=classes, input_shape=(3, side, side), mean=[0] * 3, std=[1] * 3).eval()


def test_three_classes_refuse_the_targeted_loss_and_say_what_works() -> None:
    model = few_classes(3)
    images, keys = torch.rand(4, 3, 6, 6), torch.arange(4)
    labels, threat = model.predict(images), ThreatModel(norm=Norm.LINF, epsilon=Epsilon("0.1"))
    with pytest.raises(UsageError, match=r"apgd-t needs at least 4 classes and the model has 3.*custom"):
        build_attack(Component(name="autoattack-reference"), threat)(model, images, labels, keys=keys, seed=0)
    params = {"version": "custom", "attacks": ["apgd-ce", "fab", "fab-t", "square"], "steps": 10, "queries": 20}
    advised = build_attack(Component(name="autoattack-reference", params=params), threat)
    assert advised(model, images, labels, keys=keys, seed=0).broken.any()


def test_four_classes_have_three_targets() -> None:
    model = few_classes(4)
    images, keys = torch.rand(6, 3, 6, 6), torch.arange(6)
    params = {"version": "custom", "attacks": ["apgd-t", "fab-t"], "steps": 10}
    attack = build_attack(
        Component(name="autoattack-reference", params=params), ThreatModel(norm=Norm.LINF, epsilon=Epsilon("1e-6"))
    )
    result = attack(model, images, model.predict(images), keys=keys, seed=0)
    assert not result.broken.any()
    assert result.budget.backward == 6 * (3 * 11 + 3 * 10)


def test_square_in_l2_refuses_images_below_five_pixels() -> None:
    model = few_classes(4, side=4)
    images = torch.rand(2, 3, 4, 4)
    attack = build_attack(
        Component(name="autoattack-reference", params={"version": "custom", "attacks": ["square"]}),
        ThreatModel(norm=Norm.L2, epsilon=Epsilon("0.1")),
    )
    with pytest.raises(UsageError, match="5 x 5"):
        attack(model, images, model.predict(images), keys=torch.arange(2), seed=0)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"version": "custom"}, "needs 'attacks'"),
        ({"version": "standard", "attacks": ["square"]}, "version: custom"),
        ({"queries": 100}, "version: custom"),
        ({"version": "custom", "attacks": ["apgd"]}, "attacks"),
        ({"chunk": 0}, "chunk"),
    ],
)
def test_settings_that_are_not_the_published_ones_must_say_custom(params, words) -> None:
    with pytest.raises(UsageError, match=words):
        resolve_attack(
            Component(name="autoattack-reference", params=params),
            ThreatModel(norm=Norm.LINF, epsilon=Epsilon("0.1")),
        )


def test_it_is_silent_and_names_itself_when_the_library_fails(network, capsys, caplog, monkeypatch) -> None:
    images, labels, keys = problem(network, 4)
    params = {"version": "custom", "attacks": ["apgd-dlr", "square"], "steps": 5, "queries": 10}
    attack = build_attack(
        Component(name="autoattack-reference", params=params), ThreatModel(norm=Norm.LINF, epsilon=Epsilon("0.02"))
    )
    with caplog.at_level(logging.DEBUG):
        attack(network, images, labels, keys=keys, seed=0)
    assert capsys.readouterr() == ("", "")
    assert caplog.records == []

    def fail(*args, **kwargs):
        raise IndexError("index out of range")

    monkeypatch.setattr(pyautoattack.square.SquareAttack, "perturb", fail)
    with pytest.raises(CellError, match="'autoattack-reference/square' failed inside its library: IndexError"):
        attack(network, images, labels, keys=keys, seed=0)
