"""Attack and corrupt images that a user has in hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusteval.api.models import AnyModel, Preprocessing, as_classifier
from robusteval.attacks.base import AttackResult, build_attack
from robusteval.execution.device import resolve_device
from robusteval.models.classifier import Classifier
from robusteval.schema.digest import stable_int
from robusteval.schema.errors import UsageError
from robusteval.schema.threats import Threat, read_threat
from robusteval.schema.types import Component, JsonValue
from robusteval.shifts.base import build_shift

Images = Tensor | NDArray[Any]
"""(B, C, H, W): float in [0, 1], or uint8."""


def attack(
    model: AnyModel,
    images: Images,
    labels: Tensor | Sequence[int] | NDArray[Any],
    threat: str | Threat = "linf-8/255",
    *,
    using: str | Component = "apgd-ce",
    seed: int = 0,
    device: str = "auto",
    **declared: Any,
) -> AttackResult:
    """Look for misclassified images inside a threat model.

    What the attack proposes is clipped into the ball and predicted again by the library.

    Args:
        model: as in `evaluate`.
        images: (B, C, H, W), float in [0, 1] or uint8.
        labels: B true labels.
        threat: norm and radius, such as `linf-8/255` or `l2-0.5`; or `spatial-30deg-0.1`, `recolour-0.06` with the
            attacks of these names.
        using: registered attack (`robusteval ls attacks`), or a `Component` with its parameters.
        seed: seed of its noise; with the position of an image it fixes every draw.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        **declared: `mean`, `std` and `value_range`, as in `evaluate`.

    Raises:
        UsageError: an argument makes no sense, or the images do not look like pixels in [0, 1].
        CellError: the model does not fit the images.

    Examples:
        >>> import robusteval, torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        >>> found = robusteval.attack(network, torch.rand(4, 1, 8, 8), [0, 1, 2, 0], "linf-0.1")
        >>> tuple(found.adversarial.shape)
        (4, 1, 8, 8)
    """
    place = resolve_device(device)
    pixels = as_pixels(images).to(place)
    truth = torch.as_tensor(np.asarray(labels) if not isinstance(labels, Tensor) else labels).long().to(place)
    if truth.shape != (len(pixels),):
        raise UsageError(f"{tuple(truth.shape)} labels for {len(pixels)} images; give one label an image")
    classifier = _classifier(model, pixels, truth, Preprocessing(**declared), place)
    before = classifier.device
    component = Component(name=using) if isinstance(using, str) else using
    keys = torch.tensor([stable_int("position", index) for index in range(len(pixels))], device=place)
    try:
        with classifier.to(place).mode(training=False):
            return build_attack(component, as_threat(threat))(classifier, pixels, truth, keys=keys, seed=seed)
    finally:
        classifier.to(before)


def _classifier(model: AnyModel, pixels: Tensor, truth: Tensor, preprocessing: Preprocessing, place: str) -> Classifier:
    """The model, with as many classes as it has logits."""
    shape = (int(pixels.shape[1]), int(pixels.shape[2]), int(pixels.shape[3]))
    found = as_classifier(model, classes=max(2, int(truth.max()) + 1), input_shape=shape, preprocessing=preprocessing)
    if not isinstance(model, Classifier):
        found.classes = _logits_of(found, pixels, place)
    return found


@torch.no_grad()
def _logits_of(model: Classifier, pixels: Tensor, place: str) -> int:
    before = model.device
    model.to(place)
    with model.frozen():
        logits = model.network(model.normalise(pixels[:1].expand(16, -1, -1, -1)))
    model.to(before)
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(f"the model returned {found} for 16 images, not (16, classes) logits; wrap it")
    return int(logits.shape[1])


def as_pixels(images: Images) -> Tensor:
    """Images as (B, C, H, W) float32 in [0, 1].

    Raises:
        UsageError: another shape, or values that are no pixels.
    """
    found = torch.as_tensor(images)
    if found.dim() != 4 or not len(found):
        raise UsageError(f"images of shape {tuple(found.shape)}; give (B, C, H, W) with one image or more")
    if found.dtype == torch.uint8:
        return found.float() / 255.0
    if not found.is_floating_point():
        raise UsageError(f"images are {found.dtype}; give uint8 pixels, or floats in [0, 1]")
    low, high = float(found.min()), float(found.max())
    if not (low >= 0.0 and high <= 1.0):
        if high > 1.5 and low >= 0.0:
            hint = "divide them by 255"
        else:
            hint = (
                "they seem to be normalised already: give plain pixels, and declare mean and std for the model instead"
            )
        raise UsageError(f"images range from {low:.3g} to {high:.3g}, not within [0, 1]; {hint}")
    return found.float()


def as_threat(threat: str | Threat) -> Threat:
    """A threat model from `linf-8/255`, `l2:0.5`, `spatial-30deg-0.1`, `recolour-0.06` or itself.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(threat, str):
        return threat
    try:
        return read_threat(threat)
    except ValueError:
        raise UsageError(
            f"threat {threat!r}: write norm and radius, such as linf-8/255, l2-0.5 or l1-12, or spatial-30deg-0.1 "
            "(rotation, translation) or recolour-0.06"
        ) from None


def corrupt(images: Images, name: str, severity: int = 3, *, seed: int = 0, **params: JsonValue) -> Tensor:
    """Corrupt images as a benchmark of corruptions does.

    Args:
        images: (B, 3, H, W), float in [0, 1] or uint8.
        name: registered shift (`robusteval ls shifts`).
        severity: from 1 to 5.
        seed: seed of its noise; with the position of an image it fixes every draw.
        **params: further parameters; `preset` is the published set with the nearest image size by default.

    Returns:
        As many images of the kind that was given: float32 in [0, 1], or uint8.

    Raises:
        UsageError: an unknown shift or parameter, or images that are no pixels.

    Examples:
        >>> import robusteval, torch
        >>> robusteval.corrupt(torch.rand(2, 3, 32, 32), "brightness", severity=5).shape
        torch.Size([2, 3, 32, 32])
    """
    pixels = as_pixels(images)
    bytes_ = torch.as_tensor(images) if torch.as_tensor(images).dtype == torch.uint8 else (pixels * 255).round().byte()
    params.setdefault("preset", _nearest_preset(min(bytes_.shape[2:])))
    shift = build_shift(Component(name=name, params={"severity": severity, **params}))
    keys = torch.tensor([stable_int("position", index) for index in range(len(bytes_))], device=bytes_.device)
    found: Tensor = shift(bytes_, keys=keys, seed=seed)
    return found if torch.as_tensor(images).dtype == torch.uint8 else found.float() / 255.0


def _nearest_preset(side: int) -> str:
    sizes = {"cifar10-c": 32, "tiny-imagenet-c": 64, "imagenet-c": 224}
    return min(sizes, key=lambda name: abs(sizes[name] - side))
