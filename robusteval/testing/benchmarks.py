"""Ready benchmarks of a user's own model, for pytest-benchmark.

    from robusteval.testing import benchmarks

    def test_forward_speed(benchmark):
        benchmarks.forward(benchmark, load_my_model(), (3, 32, 32))

Save a run with `pytest --benchmark-only --benchmark-autosave` and let later ones fail when they are much slower:
`--benchmark-compare --benchmark-compare-fail=min:20%`. Each benchmark waits for the device, and leaves
`images_per_second` of its fastest round, `batch`, `shape` and `device` in `extra_info`. Inputs are random pixels, fixed
by a seed, or images of your own in the place of their shape.

For measurements of another kind, such as the ratio of two, `forwarding` and `corrupting` give the work to be timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robusteval.api.images import as_pixels, prepared_shift
from robusteval.api.models import AnyModel, Preprocessing, as_classifier
from robusteval.attacks.base import build_attack
from robusteval.execution.device import resolve_device
from robusteval.models.classifier import Classifier
from robusteval.schema.threats import read_threat
from robusteval.schema.types import Component, JsonValue

ROUNDS = 5
STEPS = 10
"""Steps of the attack that `apgd_step` divides by."""

Shape = tuple[int, int, int] | Tensor
"""(C, H, W) of random pixels, or (B, C, H, W) images: float in [0, 1] or uint8."""


@dataclass(frozen=True)
class Work:
    """One batch of work, done when it is called.

    Attributes:
        run: does it.
        images: (B, C, H, W), on their device.
    """

    run: Callable[[], object]
    images: Tensor

    def __call__(self) -> None:
        """Do the work, and wait for the device."""
        self.run()
        if self.images.device.type == "cuda":
            torch.cuda.synchronize(self.images.device)


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
        shape: (C, H, W) of random pixels, or (B, C, H, W) images.
        batch: number of random images.
        classes: number of classes.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        rounds: how often it is measured, after one run that is not.
        **declared: `mean`, `std` and `value_range`, as in `robusteval.evaluate`.
    """
    with forwarding(model, shape, batch=batch, classes=classes, device=device, **declared) as work:
        _measure(benchmark, work, rounds)


@contextmanager
def forwarding(
    model: AnyModel, shape: Shape, *, batch: int = 128, classes: int = 10, device: str = "auto", **declared: Any
) -> Iterator[Work]:
    """The work of `forward`, to be timed in another way; arguments as there."""
    found, images, _ = _prepared(model, shape, batch, classes, device, declared)

    def run() -> None:
        with torch.no_grad():
            found(images)

    with found.frozen():
        yield Work(run, images)


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
        _measure(benchmark, Work(run, images), rounds)


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
        shape: (C, H, W) of random pixels, or (B, C, H, W) images.
        batch: number of random images.
        classes: number of classes.
        threat: a ball, such as `linf-8/255`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        **declared: `mean`, `std` and `value_range`, as in `robusteval.evaluate`.
    """
    found, images, _ = _prepared(model, shape, batch, classes, device, declared)
    attack = build_attack(Component(name="apgd-ce", params={"steps": STEPS, "restarts": 1}), read_threat(threat))
    keys = torch.arange(len(images), device=images.device)
    with found.frozen():
        with torch.no_grad():
            labels = found(images).argmax(dim=1)
        _measure(benchmark, Work(lambda: attack(found, images, labels, keys=keys, seed=0), images), ROUNDS)
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
        shape: (3, H, W) of random pixels, or (B, 3, H, W) images.
        severity: from 1 to 5.
        batch: number of random images.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        rounds: how often it is measured, after one run that is not.
    """
    _measure(benchmark, corrupting(name, shape, severity=severity, batch=batch, device=device), rounds)


def corrupting(
    name: str, shape: Shape, *, severity: int = 3, batch: int = 128, device: str = "auto", **params: JsonValue
) -> Work:
    """The work of `corruption_batch`, to be timed in another way; arguments as there, `params` as in `corrupt`."""
    place = resolve_device(device)
    if isinstance(shape, Tensor) and shape.dtype == torch.uint8:
        levels = shape.to(place)
    else:
        levels = (_pixels(shape, batch, place) * 255).round().byte()
    return Work(prepared_shift(levels, name, severity, **params), levels)


def _prepared(
    model: AnyModel, shape: Shape, batch: int, classes: int, device: str, declared: dict[str, Any]
) -> tuple[Classifier, Tensor, Tensor]:
    """The model on its device, one batch of pixels, and labels."""
    place = resolve_device(device)
    images = _pixels(shape, batch, place)
    size = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    found = as_classifier(model, classes=classes, input_shape=size, preprocessing=Preprocessing(**declared)).to(place)
    return found, images, torch.arange(len(images), device=place) % classes


def _pixels(shape: Shape, batch: int, place: str) -> Tensor:
    if isinstance(shape, Tensor):
        return as_pixels(shape).to(place)
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0)).to(place)


def _measure(benchmark: Any, work: Work, rounds: int) -> None:
    images = work.images
    benchmark.pedantic(work, rounds=rounds, iterations=1, warmup_rounds=1)
    benchmark.extra_info.update(batch=len(images), shape=tuple(images.shape[1:]), device=str(images.device))
    if benchmark.stats is not None:
        benchmark.extra_info["images_per_second"] = len(images) / benchmark.stats.stats.min
