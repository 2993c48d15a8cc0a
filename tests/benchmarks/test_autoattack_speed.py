"""How much faster the engine reaches AutoAttack's verdicts than the authors' code, as a ratio in one process.

Run with `pytest tests/benchmarks --benchmark-only`; a plain `pytest` skips it. Ours and the reference attack the same
examples of the same model, turn by turn on one thread, and process CPU time is compared. `extra_info` of each benchmark
holds `attack`, `case`, `precision`, `speedup`, `verdicts_lost` (broken by the reference, robust here) and `passes`.
"""

from __future__ import annotations

import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robusteval.data.batches import DeviceSet
from robusteval.data.imageset import ImageSet
from robusteval.data.slices import open_dataset
from robusteval.evaluators.adversarial import AdversarialEvaluator
from robusteval.evaluators.base import EvaluationContext
from robusteval.methods.resolve import build_method, resolve_method
from robusteval.methods.trainer import train
from robusteval.models.build import build_classifier
from robusteval.models.checkpoint_info import CheckpointInfo
from robusteval.models.checkpoints import load_checkpoint
from robusteval.models.classifier import Classifier
from robusteval.models.importing import import_weights
from robusteval.schema.records import Evaluation
from robusteval.schema.types import Component, Epsilon, ThreatModel

DIGITS = Component(name="digits")


@dataclass(frozen=True)
class Subject:
    """A model, the examples it is attacked on, and the threat."""

    case: str
    model: Classifier
    data: ImageSet
    threat: ThreatModel


@pytest.fixture(scope="module")
def robust() -> Subject:
    """A small CNN, adversarially trained on digits; about three quarters of its examples survive."""
    dataset = open_dataset(DIGITS)
    model = build_classifier(
        Component(name="small-cnn"),
        classes=10,
        input_shape=dataset.image_shape,
        mean=dataset.mean,
        std=dataset.std,
        seed=0,
    )
    recipe = {"epochs": 12, "lr": 0.05, "epsilon": 0.1, "step_size": 0.025, "steps": 7}
    parts = (DeviceSet(dataset.load("upright", split)) for split in ("train", "validation"))
    training, validation = parts
    method = build_method(resolve_method("pgd-at", recipe))
    train(method, model=model, train=training, validation=validation, seed=0)
    return Subject("robust", model, dataset.load("upright", "test", 200), ThreatModel(epsilon=Epsilon("0.1")))


@pytest.fixture(scope="module")
def undefended(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The published CIFAR ResNet-20, naturally trained; every example breaks."""
    folder = tmp_path_factory.mktemp("cifar")
    with tarfile.open(shared / "data" / "cifar10-jpeg.tar.xz") as archive:
        members = [member for member in archive if "/test/" in member.name and member.name.endswith(("0.jpg", "5.jpg"))]
        archive.extractall(folder, members=members, filter="data")
    component = Component(name="image-folder", params={"path": str(folder / "cifar10"), "cache": str(folder / "cache")})
    data = open_dataset(component).load("cifar10", "test", 500)
    info = CheckpointInfo(
        architecture=Component(name="resnet20"),
        classes=10,
        input_shape=(3, 32, 32),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    blob = import_weights(shared / "models" / "resnet20-cifar10.safetensors", info)
    model, _ = load_checkpoint(blob, source="resnet20")
    return Subject("undefended", model, data, ThreatModel(epsilon=Epsilon("8/255")))


def evaluate(subject: Subject, attack: Component) -> tuple[Evaluation, float]:
    """The evaluation and its process CPU seconds."""
    evaluator = AdversarialEvaluator(AdversarialEvaluator.Params(attacks=(attack,), checks=False))
    begin = time.process_time()
    found = evaluator.evaluate(subject.model.eval(), subject.data, EvaluationContext(threat=subject.threat))
    return found, time.process_time() - begin


def compare(benchmark: Any, subject: Subject, precision: str, version: dict[str, Any], attack: str) -> None:
    torch.set_num_threads(1)
    rounds: list[tuple[float, float]] = []
    found: list[tuple[Evaluation, Evaluation]] = []

    def both() -> None:
        ours, our_s = evaluate(subject, Component(name="autoattack", params={"precision": precision, **version}))
        theirs, their_s = evaluate(subject, Component(name="autoattack-reference", params=version))
        rounds.append((our_s, their_s))
        found.append((ours, theirs))

    benchmark.pedantic(both, rounds=1, iterations=1)
    ours, theirs = (np.array(part.outcomes["robust"].unpack()) for part in found[0])
    benchmark.extra_info.update(
        attack=attack,
        case=subject.case,
        precision=precision,
        n=len(subject.data),
        speedup=float(np.median([their_s / our_s for our_s, their_s in rounds])),
        seconds=rounds[0][0],
        reference_seconds=rounds[0][1],
        robust=float(ours.mean()),
        verdicts_lost=int((ours & ~theirs).sum()),
        verdicts_won=int((theirs & ~ours).sum()),
        passes=found[0][0].budget.model_dump(),
        reference_passes=found[0][1].budget.model_dump(),
    )
    assert (ours & ~theirs).sum() <= 0.02 * len(ours)


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_autoattack_standard_on_a_robust_network(benchmark: Any, robust: Subject, precision: str) -> None:
    compare(benchmark, robust, precision, {}, "standard")


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_autoattack_apgd_ce_on_a_robust_network(benchmark: Any, robust: Subject, precision: str) -> None:
    compare(benchmark, robust, precision, {"version": "custom", "attacks": ["apgd-ce"]}, "apgd-ce")


@pytest.mark.shared
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_autoattack_standard_on_an_undefended_network(benchmark: Any, undefended: Subject, precision: str) -> None:
    compare(benchmark, undefended, precision, {}, "standard")
