"""From an architecture's name and parameters to a classifier with reproducible initial weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from robusteval.models import ARCHITECTURES
from robusteval.models.architectures import Architecture
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import UsageError
from robusteval.schema.params import canonical_params, checked_params
from robusteval.schema.types import Component


def load_architecture(component: Component) -> Architecture[Any]:
    """The architecture that `component` names, with validated parameters.

    Raises:
        UnknownNameError: no such architecture.
        UsageError: a parameter is unknown or out of range.
    """
    kind = ARCHITECTURES.load(component.name)
    return kind(checked_params(f"architecture {component.name!r}", kind.Params, component.params))


def resolve_architecture(component: Component) -> Component:
    """`component` with every parameter present, so that equal networks have equal keys.

    Raises:
        UnknownNameError: no such architecture.
        UsageError: a parameter is unknown or out of range.
    """
    params = canonical_params(load_architecture(component).params)
    return Component(name=component.name, params=params)


def build_network(
    component: Component, classes: int, input_shape: tuple[int, int, int], *, seed: int | None
) -> nn.Module:
    """A network on the CPU whose initial weights depend on `seed` alone.

    Args:
        component: architecture.
        classes: number of logits.
        input_shape: (C, H, W).
        seed: seed of the initial weights; None gives a skeleton for weights to be loaded into.

    Raises:
        UsageError: unknown name or parameter, or an image that the architecture cannot take.
    """
    architecture = load_architecture(component)
    if classes < 2 or input_shape[0] < 1:
        raise UsageError(f"a classifier needs 2 or more classes and image channels, not {classes} of {input_shape}")
    if min(input_shape[1:]) < architecture.smallest:
        raise UsageError(
            f"architecture {component.name!r} takes images from {architecture.smallest} px up, "
            f"not {input_shape[1]} x {input_shape[2]}"
        )
    # The caller's random stream is left where it was. Only the CPU generator is seeded: networks are built there.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0 if seed is None else seed)
        build = architecture.skeleton if seed is None else architecture.build
        return build(classes, input_shape)


def build_classifier(
    architecture: Component,
    *,
    classes: int,
    input_shape: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
) -> Classifier:
    """A classifier on the CPU, in training mode; equal arguments give bitwise equal weights.

    Args:
        architecture: name and parameters.
        classes: number of classes.
        input_shape: (C, H, W).
        mean: per-channel mean on the [0, 1] scale.
        std: per-channel standard deviation on the [0, 1] scale.
        seed: seed of the initial weights.

    Raises:
        UsageError: unknown name or parameter, or an image that the architecture cannot take.
    """
    network = build_network(architecture, classes, input_shape, seed=seed)
    return Classifier(network, classes=classes, input_shape=input_shape, mean=mean, std=std)
