"""How much faster the engine reaches AutoAttack's verdicts than the authors' code, as a ratio in one process.

    pytest tests/benchmarks --benchmark-only --benchmark-json=speed.json

A plain `pytest` skips it. All runs of a case attack the same examples of the same model on one thread, and process CPU
time is compared. They take turns: the reference works on blocks of the size of its own batch, and between two of its
blocks one of ours works on all examples, so that a machine that becomes slower slows both. One turn serves all
precisions of a case, so the first of its benchmarks takes the time of all, and each stores its own seconds.

`extra_info` of each benchmark holds `attack`, `case`, `precision`, `speedup`, `verdicts_lost` (broken by the reference,
robust here), `passes`, and `matmul_share`: the share of the speed of a large matrix product, measured here in float32
for `exact` and bfloat16 else, that all passes of our run reach over its whole time.

The robust network is trained by `robust_resnet20.yaml` once, which took 19 minutes on one busy core, and kept in
`~/.cache/robusteval/benchmarks/<digest of the recipe>/`. Images and the weights that it starts from come from the
folder that `ROBUSTEVAL_SHARED` names.
`ROBUSTEVAL_BENCHMARK_EXAMPLES` lowers the number of examples, `ROBUSTEVAL_BENCHMARK_SEEDS=2` runs the reference with a
second seed as well and stores how many verdicts its seeds disagree on.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import robusteval
from robusteval.data.imageset import ImageSet
from robusteval.data.slices import open_dataset
from robusteval.evaluators.adversarial import AdversarialEvaluator
from robusteval.evaluators.base import EvaluationContext
from robusteval.models.checkpoint_info import CheckpointInfo
from robusteval.models.checkpoints import load_checkpoint
from robusteval.models.classifier import Classifier
from robusteval.models.importing import import_weights
from robusteval.schema.types import Component, Epsilon, ThreatModel
from robusteval.store.store import Store

pytestmark = pytest.mark.shared

RECIPE = Path(__file__).with_name("robust_resnet20.yaml")
THREAT = ThreatModel(epsilon=Epsilon("8/255"))
BLOCK = 100
"""Examples that the reference attacks in one turn; also its batch size."""
APGD_CE = {"version": "custom", "attacks": ["apgd-ce"], "restarts": 1}
OURS: dict[str, dict[str, Any]] = {
    "exact": {"precision": "exact"},
    "fast": {"precision": "fast"},
    "two-stage": {"precision": "fast", "mode": "two-stage"},
}


@dataclass(frozen=True)
class Subject:
    """A model and the examples it is attacked on."""

    case: str
    model: Classifier
    data: ImageSet

    def first(self, n: int) -> Subject:
        """The same model on the first n examples."""
        return replace(self, data=self.data.take(np.arange(min(n, len(self.data)))))


@dataclass
class Run:
    """Verdicts, passes and process CPU seconds of one way to attack all examples."""

    robust: list[bool] = field(default_factory=list)
    seconds: float = 0.0
    forward: int = 0
    backward: int = 0

    def add(self, subject: Subject, data: ImageSet, attack: Component, seed: int) -> None:
        evaluator = AdversarialEvaluator(AdversarialEvaluator.Params(attacks=(attack,), checks=False))
        begin = time.process_time()
        found = evaluator.evaluate(subject.model, data, EvaluationContext(threat=THREAT, seed=seed))
        self.seconds += time.process_time() - begin
        self.robust += found.outcomes["robust"].unpack()
        self.forward += found.budget.forward
        self.backward += found.budget.backward


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def cifar(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked test images, and the others where the robust network has to be trained."""
    folder = tmp_path_factory.mktemp("cifar")
    with tarfile.open(shared / "data" / "cifar10-jpeg.tar.xz") as archive:
        members = [member for member in archive if "/test/" in member.name or not cached_weights().exists()]
        archive.extractall(folder, members=members, filter="data")
    return folder


def examples_of(folder: Path, n: int) -> ImageSet:
    parameters = {"path": str(folder / "cifar10"), "size": 32, "cache": str(folder / "cache")}
    wanted = min(n, int(os.environ.get("ROBUSTEVAL_BENCHMARK_EXAMPLES", n)))
    return open_dataset(Component(name="image-folder", params=parameters)).load("cifar10", "test", wanted)


def cached_weights() -> Path:
    digest = hashlib.sha256(RECIPE.read_bytes()).hexdigest()[:16]
    return Path.home() / ".cache" / "robusteval" / "benchmarks" / digest / "robust_resnet20.safetensors"


@pytest.fixture(scope="module")
def robust(shared: Path, cifar: Path, request: pytest.FixtureRequest) -> Subject:
    """A CIFAR ResNet-20, adversarially trained for two epochs from natural weights."""
    weights = cached_weights()
    if not weights.exists():
        told = f"training {RECIPE.name} once, some 10 to 20 minutes; it is kept as {weights}"
        request.config.get_terminal_writer().line(told)
        shutil.copy(shared / "models" / "resnet20-cifar10.safetensors", cifar)
        robusteval.run(shutil.copy(RECIPE, cifar), store=cifar / "store")
        store = Store.open(cifar / "store")
        (training,) = [record.training for record in store.records() if record.training is not None]
        weights.parent.mkdir(parents=True, exist_ok=True)
        partial = weights.with_suffix(".partial")
        partial.write_bytes(store.get_artefact(training.weights))
        partial.replace(weights)
    model, _ = load_checkpoint(weights.read_bytes(), source=str(weights))
    return Subject("robust", model.eval(), examples_of(cifar, 500))


@pytest.fixture(scope="module")
def undefended(shared: Path, cifar: Path) -> Subject:
    """The published CIFAR ResNet-20, naturally trained; every example breaks."""
    info = CheckpointInfo(
        architecture=Component(name="resnet20"),
        classes=10,
        input_shape=(3, 32, 32),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    blob = import_weights(shared / "models" / "resnet20-cifar10.safetensors", info)
    model, _ = load_checkpoint(blob, source="resnet20")
    return Subject("undefended", model.eval(), examples_of(cifar, 500))


@pytest.fixture(scope="module")
def turns() -> dict[tuple[str, str], dict[str, Run]]:
    """What has been measured already, by case and attack."""
    return {}


@pytest.fixture(scope="module")
def peaks() -> dict[str, float]:
    """FLOP a second of a large matrix product, by precision."""
    return {"exact": matmul_peak(torch.float32), "fast": matmul_peak(torch.bfloat16)}


def matmul_peak(dtype: torch.dtype, size: int = 2048) -> float:
    first, second = (torch.rand(size, size).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(4):
        begin = time.process_time()
        first @ second
        seconds.append(time.process_time() - begin)
    return 2 * size**3 / min(seconds)


def take_turns(subject: Subject, params: dict[str, Any], precisions: tuple[str, ...]) -> dict[str, Run]:
    """All examples by the reference, in blocks, and by ours in each precision, in turn."""
    count, seeds = len(subject.data), range(int(os.environ.get("ROBUSTEVAL_BENCHMARK_SEEDS", "1")))
    runs = {name: Run() for name in (*precisions, *(f"reference {seed}" for seed in seeds))}

    def theirs(seed: int, block: ImageSet) -> Callable[[], None]:
        attack = Component(name="autoattack-reference", params=params)
        return lambda: runs[f"reference {seed}"].add(subject, block, attack, seed)

    def ours(precision: str) -> Callable[[], None]:
        attack = Component(name="autoattack", params={**OURS[precision], **params})
        return lambda: runs[precision].add(subject, subject.data, attack, 0)

    parts = np.array_split(np.arange(count), max(1, round(count / BLOCK)))
    blocks = [theirs(seed, subject.data.take(part)) for seed in seeds for part in parts]
    for turn in zip_longest(blocks, [ours(precision) for precision in precisions]):
        for step in turn:
            if step is not None:
                step()
    return runs


def compare(
    benchmark: Any,
    turns: dict[tuple[str, str], dict[str, Run]],
    peaks: dict[str, float],
    subject: Subject,
    *,
    attack: str,
    precision: str,
) -> None:
    params: dict[str, Any] = APGD_CE if attack == "apgd-ce" else {}
    precisions = tuple(OURS) if (attack, subject.case) == ("standard", "robust") else ("exact", "fast")
    key = (subject.case, attack)

    def run() -> dict[str, Run]:
        if key not in turns:
            turns[key] = take_turns(subject, params, precisions)
        return turns[key]

    runs = benchmark.pedantic(run, rounds=1, iterations=1)
    mine, reference = runs[precision], runs["reference 0"]
    robust, expected = np.array(mine.robust), np.array(reference.robust)
    peak = peaks["exact" if precision == "exact" else "fast"]
    lost = robust & ~expected
    benchmark.extra_info.update(
        attack=attack,
        case=subject.case,
        precision=precision,
        speedup=reference.seconds / mine.seconds,
        verdicts_lost=int(lost.sum()),
        verdicts_won=int((expected & ~robust).sum()),
        passes={"forward": mine.forward, "backward": mine.backward},
        reference_passes={"forward": reference.forward, "backward": reference.backward},
        matmul_share=(mine.forward + mine.backward) * pass_flops(subject.model) / mine.seconds / peak,
        matmul_peak=peak,
        n=len(subject.data),
        robust=float(robust.mean()),
        seconds=mine.seconds,
        reference_seconds=reference.seconds,
    )
    if second := runs.get("reference 1"):
        benchmark.extra_info["reference_seeds_differ"] = int((np.array(second.robust) != expected).sum())
    assert mine.robust
    # The second stage of two-stage looks at a sample: what it did not look at may stand here and not there.
    assert precision == "two-stage" or lost.sum() <= max(1, 0.01 * len(robust))


def pass_flops(model: Classifier) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(16, *model.input_shape))
    return int(counter.get_total_flops()) // 16


@pytest.mark.parametrize("precision", list(OURS))
def test_autoattack_standard_on_a_robust_network(
    benchmark: Any, turns: Any, peaks: Any, robust: Subject, precision: str
) -> None:
    compare(benchmark, turns, peaks, robust.first(200), attack="standard", precision=precision)


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_autoattack_apgd_ce_on_a_robust_network(
    benchmark: Any, turns: Any, peaks: Any, robust: Subject, precision: str
) -> None:
    compare(benchmark, turns, peaks, robust, attack="apgd-ce", precision=precision)


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_autoattack_standard_on_an_undefended_network(
    benchmark: Any, turns: Any, peaks: Any, undefended: Subject, precision: str
) -> None:
    compare(benchmark, turns, peaks, undefended, attack="standard", precision=precision)
