from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from robusteval.attacks import ATTACKS
from robusteval.attacks.base import build_attack, resolve_attack
from robusteval.schema.errors import CellError, UnknownNameError, UsageError
from robusteval.schema.types import Component, Epsilon, Norm, ThreatModel

THREAT = ThreatModel(norm=Norm.LINF, epsilon=Epsilon("0.045"))


def build(name: str, threat: ThreatModel = THREAT, chunk: int = 64, **kwargs):
    return build_attack(Component(name=f"torchattacks/{name}", params={"kwargs": kwargs, "chunk": chunk}), threat)


@pytest.mark.parametrize(
    ("name", "kwargs", "words"),
    [
        ("PDG", {}, ["unknown attack 'torchattacks/PDG'", "torchattacks/PGD"]),
        ("apgd", {}, ["did you mean 'torchattacks/APGD'"]),
        ("PGD", {"step": 3}, ["unknown keyword argument of torchattacks/PGD 'step'", "'steps'"]),
        ("PGD", {"eps": 0.1}, ["'eps' is set from the threat"]),
        ("APGDT", {"n_classes": 3}, ["'n_classes' is set from"]),
        ("MultiAttack", {}, ["wraps other attacks", "list several attacks"]),
        ("LGV", {}, ["wraps other attacks"]),
        ("CW", {}, ["does not support the norm linf", "l2"]),
    ],
)
def test_a_wrong_name_or_keyword_is_one_line_that_says_what_is_valid(name, kwargs, words) -> None:
    with pytest.raises(UsageError) as caught:
        build(name, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert isinstance(caught.value, UnknownNameError) == message.startswith("unknown attack")


def test_resolving_writes_down_every_keyword_of_the_class() -> None:
    resolved = resolve_attack(Component(name="torchattacks/PGD", params={"kwargs": {"steps": 3}}), THREAT)
    assert resolved.params == {"kwargs": {"alpha": None, "steps": 3, "random_start": True}, "chunk": 64}


def test_the_step_keeps_its_ratio_to_the_radius(trained) -> None:
    attack = build("BIM")
    instance = attack._instance(trained.model, 0)
    assert instance.eps == pytest.approx(0.045)
    assert instance.alpha == pytest.approx(0.045 / 4)
    assert build("BIM", alpha=0.5)._instance(trained.model, 0).alpha == 0.5


def test_results_depend_on_the_chunk_and_not_on_the_batch_they_arrive_in(trained) -> None:
    examples, attack = trained.examples, build("PGD", chunk=16)
    whole = attack(trained.model, examples.images, examples.labels, keys=examples.keys, seed=0)
    parts = []
    for first in range(0, 80, 32):
        part = examples.take(torch.arange(first, min(first + 32, 80)))
        parts.append(attack(trained.model, part.images, part.labels, keys=part.keys, seed=0).adversarial)
    assert torch.equal(torch.cat(parts), whole.adversarial)
    assert attack.composition == 16


def test_global_generators_are_as_before_even_after_a_failure(trained) -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(1)), float(np.random.random()), random.random()

    examples = trained.examples.take(torch.arange(4))
    for attack, error in ((build("Pixle", restarts=1), None), (build("PGD", steps="many"), CellError)):
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        expected = draw()
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        if error is None:
            attack(trained.model, examples.images, examples.labels, keys=examples.keys, seed=0)
        else:
            with pytest.raises(error, match=r"torchattacks/PGD.*failed inside its library: TypeError"):
                attack(trained.model, examples.images, examples.labels, keys=examples.keys, seed=0)
        assert draw() == expected


def test_a_library_says_nothing_on_stdout(trained, capsys) -> None:
    examples = trained.examples.take(torch.arange(4))
    attack = build("APGD", ThreatModel(norm=Norm.L2, epsilon=Epsilon("0.5")))
    attack(trained.model, examples.images, examples.labels, keys=examples.keys, seed=0)
    assert capsys.readouterr().out == ""


def test_jsma_targets_the_next_class_of_this_model(linear) -> None:
    problem = linear(Norm.LINF)
    attack = ATTACKS.load("torchattacks/JSMA")(ATTACKS.load("torchattacks/JSMA").Params(), problem.threat)
    last = torch.full((2,), problem.model.classes - 1)
    instance = attack._instance(problem.model, 0)
    assert instance.get_target_label(None, last).tolist() == [0, 0]
