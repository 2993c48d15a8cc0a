"""Trains small models as one of several processes; run by `test_parallel.py`, once for all of its questions.

python rank_worker.py INDEX COUNT MEETING OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from robusteval.data.batches import DeviceSet
from robusteval.data.imageset import ImageSet
from robusteval.methods.base import no_progress
from robusteval.methods.parallel import Ranks, joined
from robusteval.methods.resolve import build_method
from robusteval.methods.trainer import train
from robusteval.models.classifier import Classifier
from robusteval.schema.types import Component, Progress
from robusteval.store.scratch import Scratch

COMMON = {"epochs": 2, "batch_size": 9, "lr": 0.05}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "erm": ("erm", {**COMMON, "batch_norm": "frozen"}),
    "erm normalised": ("erm", {**COMMON, "optimizer": "adam", "lr": 0.003}),
    "l2": ("pgd-at", {**COMMON, "norm": "l2", "epsilon": 0.5, "step_size": 0.2, "steps": 2}),
    "linf": (
        "pgd-at",
        {**COMMON, "steps": 2, "select": "best-validation", "augment": [{"name": "pad-crop", "params": {"pad": 1}}]},
    ),
    "drawn": (
        "pgd-at",
        {"iterations": 4, "evaluate_every": 2, "batch_size": 7, "steps": 1, "init": "gauss", "lr": 0.05},
    ),
    "aft": ("aft", {**COMMON, "steps": 1, "attack_bn": "eval"}),
}
"""Questions: the last batch of 40 examples has 4, so that rows are divided unevenly all along."""


def images(n: int, seed: int) -> DeviceSet:
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % 4
    pixels = rng.integers(0, 120, size=(n, 3, 8, 8)) + 30 * labels[:, None, None, None]
    names = tuple(f"{seed}/{index}" for index in range(n))
    return DeviceSet(
        ImageSet(
            images=pixels.astype(np.uint8), labels=labels, ids=names, groups=names, domains=("plain",) * n,
            classes=tuple("abcd"),
        )
    )  # fmt: skip


def network() -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.Softplus(),
            nn.Conv2d(6, 8, 3, stride=2, padding=1),
            nn.Softplus(),
            nn.Flatten(),
            nn.Linear(8 * 16, 4),
        )
    return Classifier(layers, classes=4, input_shape=(3, 8, 8), mean=(0.3,) * 3, std=(0.25,) * 3)


class StoppedError(Exception):
    """Ends a run in its second epoch."""


def stop_in_second_epoch(fraction: float, what: str) -> None:
    if what == "epoch 2/2":
        raise StoppedError


def answer(
    name: str, ranks: Ranks, scratch: Scratch | None = None, progress: Progress = no_progress
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and the rest of what one run found."""
    method, params = RUNS[name]
    found = train(
        build_method(Component(name=method, params=params)),
        model=network(),
        train=images(40, 1),
        validation=images(300, 2),
        seed=3,
        scratch=scratch,
        progress=progress,
        ranks=ranks,
    )
    rest = {
        "budget": found.budget.model_dump(),
        "selection": found.selection_budget.model_dump(),
        "epoch": found.selected_epoch,
        "history": list(found.history),
    }
    return found.model.state_dict(), rest


def resumed(name: str, ranks: Ranks, folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a run finds that was stopped in every process and goes on from what one of them has saved."""
    try:
        answer(name, ranks, Scratch(folder), stop_in_second_epoch)
    except StoppedError:
        ranks.sum_(torch.zeros(1))  # none reads what is saved before all have stopped
        return answer(name, ranks, Scratch(folder))
    raise AssertionError("the run was not stopped")


def everything(ranks: Ranks) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, documents = {}, {}
    for name in RUNS:
        weights, documents[name] = answer(name, ranks)
        tensors |= {f"{name}/{key}": value for key, value in weights.items()}
    return tensors, documents


def main(index: str, count: str, meeting: str, out: str) -> None:
    torch.set_num_threads(1)
    with joined(int(index), int(count), torch.device("cpu"), Path(meeting)) as ranks:
        tensors, documents = everything(ranks)
        weights, documents["resumed"] = resumed("linf", ranks, Path(out) / "scratch")
        tensors |= {f"resumed/{key}": value for key, value in weights.items()}
    safetensors.torch.save_file(tensors, f"{out}/{index}.safetensors", {"documents": json.dumps(documents)})


if __name__ == "__main__":
    main(*sys.argv[1:])
