"""Ready benchmarks of a user's own model, for pytest-benchmark.

    from robusteval.testing import benchmarks

    def test_forward_speed(benchmark):
        benchmarks.forward(benchmark, load_my_model(), (3, 32, 32))

Save a run with `pytest --benchmark-only --benchmark-autosave` and let later ones fail when they are much slower:
`--benchmark-compare --benchmark-compare-fail=min:20%`. Each benchmark waits for the device, and leaves
`images_per_second` of its fastest round, `batch`, `shape` and `device` in `extra_info`. Inputs are random pixels, fixed
by a seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from robusteval.api.images import corrupt
from robusteval.api.models import AnyModel, Preprocessing, as_classifier
from robusteval.attacks.base import build_attack
from robusteval.execution.device import resolve_device
from robusteval.models.classifier import Classifier
from robusteval.schema.threats import read_threat
from robusteval.schema.types import Component

ROUNDS = 5
STEPS = 10
"""Steps of the attack that `apgd_step` divides by."""

Shape = tuple[int, int, int]


def forward(
    benchmark: Any,
    model: AnyModel,
    shape: Shape,
    *,
    batch: int = 128,
    classes: int = 10,
    device: str = "auto",
    rounds: int = ROUNDS,
    **declared: Any,
) -> None:
    """Clean predictions of one batch.

    Args:
        benchmark: the fixture of pytest-benchmark.
        model: as in `robusteval.evaluate`.
        shape: (C, H, W) of an image.
        batch: images in a batch.
        classes: number of classes.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        rounds: how often it is measured, after one run that is not.
        **declared: `mean`, `std` and `value_range`, as in `robusteval.evaluate`.
    """
    found, images, _ = _prepared(model, shape, batch, classes, device, declared)

    def run() -> None:
        with torch.no_grad():
            found(images)

    with found.frozen():
        _measure(benchmark, run, images, rounds)


def forward_backward(
    benchmark: Any,
    model: AnyModel,
    shape: Shape,
    *,
    batch: int = 128,
    classes: int = 10,
    device: str = "auto",
    rounds: int = ROUNDS,
    **declared: Any,
) -> None:
    """Predictions of one batch and the gradient of the cross-entropy by its pixels; arguments as in `forward`."""
    found, images, labels = _prepared(model, shape, batch, classes, device, declared)

    def run() -> None:
        asked = images.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(found(asked), labels)
        torch.autograd.grad(loss, asked)

    with found.frozen():
        _measure(benchmark, run, images, rounds)


def apgd_step(
    benchmark: Any,
    model: AnyModel,
    shape: Shape,
    *,
    batch: int = 128,
    classes: int = 10,
    threat: str = "linf-8/255",
    device: str = "auto",
    **declared: Any,
) -> None:
    """Ten steps of APGD on one batch, everything that surrounds them included.

    `extra_info` also holds `seconds_per_step`. Images are labelled as the model predicts them, so that they start out
    right; those that break leave the batch, as they do in an evaluation.

    Args:
        benchmark: the fixture of pytest-benchmark.
        model: as in `robusteval.evaluate`.
        shape: (C, H, W) of an image.
        batch: images in a batch.
        classes: number of classes.
        threat: a ball, such as `linf-8/255`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        **declared: `mean`, `std` and `value_range`, as in `robusteval.evaluate`.
    """
    found, images, _ = _prepared(model, shape, batch, classes, device, declared)
    attack = build_attack(Component(name="apgd-ce", params={"steps": STEPS, "restarts": 1}), read_threat(threat))
    keys = torch.arange(batch, device=images.device)
    with found.frozen():
        with torch.no_grad():
            labels = found(images).argmax(dim=1)
        _measure(benchmark, lambda: attack(found, images, labels, keys=keys, seed=0), images, ROUNDS)
    if benchmark.stats is not None:
        benchmark.extra_info["seconds_per_step"] = benchmark.stats.stats.min / STEPS


def corruption_batch(
    benchmark: Any,
    name: str,
    shape: Shape,
    *,
    severity: int = 3,
    batch: int = 128,
    device: str = "auto",
    rounds: int = ROUNDS,
) -> None:
    """One batch under one corruption.

    Args:
        benchmark: the fixture of pytest-benchmark.
        name: registered shift (`robusteval ls shifts`).
        shape: (3, H, W) of an image.
        severity: from 1 to 5.
        batch: images in a batch.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        rounds: how often it is measured, after one run that is not.
    """
    images = (_pixels(shape, batch, resolve_device(device)) * 255).round().byte()
    _measure(benchmark, lambda: corrupt(images, name, severity), images, rounds)


def _prepared(
    model: AnyModel, shape: Shape, batch: int, classes: int, device: str, declared: dict[str, Any]
) -> tuple[Classifier, Tensor, Tensor]:
    """The model on its device, one batch of pixels, and labels."""
    place = resolve_device(device)
    found = as_classifier(model, classes=classes, input_shape=shape, preprocessing=Preprocessing(**declared)).to(place)
    return found, _pixels(shape, batch, place), torch.arange(batch, device=place) % classes


def _pixels(shape: Shape, batch: int, place: str) -> Tensor:
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0)).to(place)


def _measure(benchmark: Any, run: Callable[[], object], images: Tensor, rounds: int) -> None:
    def whole() -> None:
        run()
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)

    benchmark.pedantic(whole, rounds=rounds, iterations=1, warmup_rounds=1)
    benchmark.extra_info.update(batch=len(images), shape=tuple(images.shape[1:]), device=str(images.device))
    if benchmark.stats is not None:
        benchmark.extra_info["images_per_second"] = len(images) / benchmark.stats.stats.min
