"""Whatever a user calls a model, as a `Classifier`: modules, timm models, checkpoints, functions on arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robusteval.models.checkpoint_info import inspect_checkpoint
from robusteval.models.checkpoints import load_checkpoint
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import CheckpointError, UsageError

ArrayFunction = Callable[[NDArray[np.float32]], NDArray[np.floating[Any]]]
"""Maps (B, C, H, W) float32 images to (B, classes) logits."""
AnyModel = nn.Module | ArrayFunction | str | Path
"""A network, a `Classifier`, a function on arrays, or the path of a .safetensors checkpoint."""


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its input, declared: it gets `(low + (high - low) * pixels - mean) / std`.

    Attributes:
        mean: per-channel mean in the units of `value_range`, or None if nothing is subtracted.
        std: per-channel standard deviation in the same units, or None if nothing is divided by.
        value_range: what black and white are for the network: `(0, 1)`, `(0, 255)`, `(-1, 1)`.
    """

    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    value_range: tuple[float, float] = (0.0, 1.0)

    @property
    def declared(self) -> bool:
        """Whether anything was said."""
        return self.mean is not None or self.std is not None or tuple(self.value_range) != (0.0, 1.0)

    def on_unit_scale(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation on the [0, 1] scale of pixels.

        Raises:
            UsageError: the numbers do not fit the channels, or make no sense.
        """
        low, high = self.value_range
        if not high > low:
            raise UsageError(f"value_range {tuple(self.value_range)}: the second number must be larger than the first")
        mean = _channels("mean", self.mean, 0.0, channels)
        std = _channels("std", self.std, 1.0, channels)
        if not min(std) > 0.0:
            raise UsageError(f"std {std}: every number must be positive")
        size = high - low
        return tuple((value - low) / size for value in mean), tuple(value / size for value in std)


def _channels(name: str, values: Sequence[float] | None, default: float, channels: int) -> tuple[float, ...]:
    if values is None:
        return (default,) * channels
    found = tuple(float(value) for value in values)
    if len(found) != channels:
        raise UsageError(f"{name} has {len(found)} numbers, the images have {channels} channels; give one a channel")
    return found


class ArrayNetwork(nn.Module):
    """A function on arrays as a network without gradients.

    Args:
        function: maps (B, C, H, W) float32 arrays to (B, classes) logits.
    """

    def __init__(self, function: ArrayFunction) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images; the computation leaves no graph."""
        logits = np.asarray(self.function(images.detach().cpu().numpy()))
        return torch.as_tensor(logits, dtype=torch.float32).to(images.device)


def as_classifier(
    model: AnyModel, *, classes: int, input_shape: tuple[int, int, int], preprocessing: Preprocessing
) -> Classifier:
    """The model with its normalisation inside.

    A `Classifier` or a checkpoint knows its preprocessing. A timm model has it in its configuration, which is used
    unless something is declared. Any other network takes pixels in [0, 1] as they are unless something is declared.

    Args:
        model: the model.
        classes: number of classes of the data.
        input_shape: (C, H, W) of the data.
        preprocessing: what the network expects.

    Raises:
        UsageError: the model is of no known kind or has no weights, or preprocessing is declared for a model that knows
            its own.
        CheckpointError: the file cannot be read.
    """
    if isinstance(model, str | Path):
        model = _from_file(Path(model))
    if isinstance(model, nn.Module):
        _refuse_empty(model)
    if isinstance(model, Classifier):
        if preprocessing.declared:
            raise UsageError("this model normalises by itself; leave mean, std and value_range out")
        return model
    if not isinstance(preprocessing.value_range, tuple) or len(preprocessing.value_range) != 2:
        raise UsageError(f"value_range {preprocessing.value_range!r}: give two numbers, such as (0, 255)")
    if not isinstance(model, nn.Module):
        if isinstance(model, type):
            raise UsageError(f"{model.__name__} is a class; give a network of it, such as {model.__name__}()")
        if not callable(model):
            raise UsageError(
                f"{type(model).__name__} is no model; give a torch.nn.Module, a function from images to logits, or the "
                f"path of a .safetensors checkpoint"
            )
        model = ArrayNetwork(model)
    if not preprocessing.declared:
        preprocessing = _of_timm(model, input_shape[0]) or preprocessing
    mean, std = preprocessing.on_unit_scale(input_shape[0])
    found = Classifier(model, classes=classes, input_shape=input_shape, mean=mean, std=std)
    place = next(model.parameters(), None)
    return found if place is None else found.to(place.device)


def _refuse_empty(model: nn.Module) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise UsageError(f"the model's {name} has no shape yet; show it one batch of images first")
        if tensor.is_meta:
            raise UsageError(f"the model has no weights, its {name} is on the meta device; load weights first")


def _from_file(path: Path) -> Classifier:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}); give a .safetensors file") from None
    return load_checkpoint(data, source=str(path))[0]


def _of_timm(model: nn.Module, channels: int) -> Preprocessing | None:
    """What timm wrote into the model about its input, if it fits the channels."""
    config = getattr(model, "pretrained_cfg", None)
    if not isinstance(config, dict) or not type(model).__module__.startswith("timm."):
        return None
    mean, std = config.get("mean"), config.get("std")
    if mean is None or std is None or len(mean) != channels or len(std) != channels:
        return None
    return Preprocessing(tuple(mean), tuple(std))


def family_of(model: AnyModel, classifier: Classifier) -> str:
    """What kind of model it is: the architecture of a checkpoint, else the name of the network's class or the function.

    Args:
        model: what the user gave.
        classifier: the same as a classifier.
    """
    if isinstance(model, str | Path):
        return inspect_checkpoint(Path(model), source=str(model)).architecture.name
    network = classifier.network
    if isinstance(network, ArrayNetwork):
        name = getattr(network.function, "__qualname__", type(network.function).__qualname__)
        return f"function {name.rpartition('<locals>.')[2]}"
    return type(network).__qualname__.rpartition("<locals>.")[2]
