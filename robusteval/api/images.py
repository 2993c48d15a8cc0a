"""Attack and corrupt images that a user has in hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusteval.api.models import AnyModel, Preprocessing, as_classifier
from robusteval.attacks.base import AttackResult, build_attack
from robusteval.evaluators.model_checks import (
    check_devices,
    check_gradient,
    check_memory,
    clean_logits,
    raising_on,
)
from robusteval.execution.device import resolve_device
from robusteval.models.classifier import Classifier
from robusteval.schema.digest import stable_int
from robusteval.schema.errors import UsageError
from robusteval.schema.threats import RecolourThreat, SpatialThreat, Threat, read_threat
from robusteval.schema.types import Access, Component, JsonValue, ThreatModel
from robusteval.shifts.base import build_shift

Images = Tensor | NDArray[Any]
"""(B, C, H, W): float in [0, 1], or uint8."""
_CHECKED = 128
"""Clean images in one pass of the checks before an attack."""


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
        CellError: the model does not fit the images, raises on one of them, answers with NaN or infinity, remembers
            what it was asked before, or has no gradient that the attack needs; images are named by their positions.

    Examples:
        >>> import robusteval, torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        >>> found = robusteval.attack(network, torch.rand(4, 1, 8, 8), [0, 1, 2, 0], "linf-0.1")
        >>> tuple(found.adversarial.shape)
        (4, 1, 8, 8)
    """
    place, proposer = resolve_device(device), build_attack(as_component(using), as_threat(threat))
    pixels = as_pixels(images).to(place)
    truth = as_labels(labels, len(pixels)).to(place)
    classifier = _classifier(model, pixels, truth, as_preprocessing(declared))
    before = classifier.device
    keys = torch.tensor([stable_int("position", index) for index in range(len(pixels))], device=place)
    try:
        with classifier.to(place).mode(training=False):
            _check_answers(classifier, model, pixels)
            if any(stage.needs is Access.WHITE_BOX for stage in proposer.stages()):
                with classifier.frozen():
                    check_gradient(classifier, pixels, ["0"])
            return proposer(classifier, pixels, truth, keys=keys, seed=seed)
    finally:
        classifier.to(before)


def _classifier(model: AnyModel, pixels: Tensor, truth: Tensor, preprocessing: Preprocessing) -> Classifier:
    """The model, for now with as many classes as the labels need."""
    shape = (int(pixels.shape[1]), int(pixels.shape[2]), int(pixels.shape[3]))
    found = as_classifier(model, classes=max(2, int(truth.max()) + 1), input_shape=shape, preprocessing=preprocessing)
    check_devices(found)
    return found


@torch.no_grad()
def _check_answers(model: Classifier, given: AnyModel, pixels: Tensor) -> None:
    """Refuse a model whose answers to the clean images mean nothing; a plain network gets its number of classes."""
    names = [str(position) for position in range(len(pixels))]
    for start in range(0, len(pixels), _CHECKED):
        part, ids = pixels[start : start + _CHECKED], names[start : start + _CHECKED]
        with model.frozen():
            if start == 0 and not isinstance(given, Classifier):
                with raising_on(ids):
                    model.classes = _logits_of(model, part)
            clean_logits(model, part, ids)
            if start == 0:
                check_memory(model, part, ids)


def _logits_of(model: Classifier, pixels: Tensor) -> int:
    """Number of logits.

    Raises:
        UsageError: what the network returns is no table of logits.
    """
    logits = model.network(model.normalise(pixels[:1].expand(16, -1, -1, -1)))
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(f"the model returned {found} for 16 images, not (16, classes) logits; wrap it")
    if logits.shape[1] < 2:
        raise UsageError(
            f"the model returned {logits.shape[1]} logit an image; an attack needs two classes or more, so return "
            f"(-logit, logit) for a binary decision"
        )
    if not logits.is_floating_point():
        raise UsageError(f"the model returned {logits.dtype}; return logits as floating point numbers")
    if logits.device != pixels.device:
        raise UsageError(
            f"the model returned logits on {logits.device} for images on {pixels.device}; keep to one device"
        )
    return int(logits.shape[1])


def as_component(using: str | Component) -> Component:
    """An attack by its name, or with parameters.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(using, Component):
        return using
    if not isinstance(using, str):
        raise UsageError(f"using = {using!r}: give the name of an attack, such as 'apgd-ce', or a Component")
    return Component(name=using)


def as_preprocessing(declared: Mapping[str, Any]) -> Preprocessing:
    """What is declared about the input of a network.

    Raises:
        UsageError: something else is declared.
    """
    known = {"mean", "std", "value_range"}
    for name in declared:
        if name not in known:
            raise UsageError(f"unknown argument {name!r}; a network's input is declared by mean, std and value_range")
    return Preprocessing(**declared)


def as_labels(labels: Tensor | Sequence[int] | NDArray[Any], count: int) -> Tensor:
    """Labels as (`count`,) int64.

    Raises:
        UsageError: another number of labels, or no whole numbers.
    """
    found = labels if isinstance(labels, Tensor) else np.asarray(labels)
    if isinstance(found, np.ndarray) and found.dtype.kind not in "biuf":
        raise UsageError(f"labels are {found.dtype}; give the number of a class for each image")
    truth = torch.as_tensor(found)
    if truth.shape != (count,):
        raise UsageError(f"{tuple(truth.shape)} labels for {count} images; give one label an image")
    if truth.is_floating_point() and not bool((truth == truth.round()).all()):
        wrong = (truth != truth.round()).nonzero().flatten().tolist()
        raise UsageError(
            f"labels of image {', '.join(map(str, wrong[:5]))} are no whole numbers ({float(truth[wrong[0]])}); give "
            "the number of a class for each image"
        )
    return truth.long()


def as_pixels(images: Images) -> Tensor:
    """Images as (B, C, H, W) float32 in [0, 1].

    Raises:
        UsageError: another shape, or values that are no pixels.
    """
    found = _as_batch(images)
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


def _as_batch(images: Images) -> Tensor:
    try:
        # A copy where it is needed: torch takes no array with negative strides, such as one with its channels reversed.
        found = torch.as_tensor(np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"images are a {type(images).__name__} that is no array of numbers ({error})") from None
    if found.dim() != 4 or not len(found):
        raise UsageError(f"images of shape {tuple(found.shape)}; give (B, C, H, W) with one image or more")
    return found


def as_threat(threat: str | Threat) -> Threat:
    """A threat model from `linf-8/255`, `l2:0.5`, `spatial-30deg-0.1`, `recolour-0.06` or itself.

    Raises:
        UsageError: it is none.
    """
    if isinstance(threat, ThreatModel | SpatialThreat | RecolourThreat):
        return threat
    try:
        return read_threat(threat)
    except (ValueError, TypeError, AttributeError):
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
    given = _as_batch(images)
    levels = given if given.dtype == torch.uint8 else (as_pixels(given) * 255).round().byte()
    found = prepared_shift(levels, name, severity, seed=seed, **params)()
    return found if given.dtype == torch.uint8 else found.float() / 255.0


def prepared_shift(
    levels: Tensor, name: str, severity: int, *, seed: int = 0, **params: JsonValue
) -> Callable[[], Tensor]:
    """What `corrupt` does to (B, 3, H, W) uint8 images, ready to be done; arguments as there.

    Raises:
        UsageError: an unknown shift or parameter.
    """
    params.setdefault("preset", _nearest_preset(min(levels.shape[2:])))
    shift = build_shift(Component(name=name, params={"severity": severity, **params}))
    keys = torch.tensor([stable_int("position", index) for index in range(len(levels))], device=levels.device)
    return partial(shift, levels, keys=keys, seed=seed)


def _nearest_preset(side: int) -> str:
    sizes = {"cifar10-c": 32, "tiny-imagenet-c": 64, "imagenet-c": 224}
    return min(sizes, key=lambda name: abs(sizes[name] - side))
