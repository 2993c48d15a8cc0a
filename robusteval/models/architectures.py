"""The contract of an architecture, and the initialisation that all built-in ones share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from torch import nn

from robusteval.schema.types import Frozen

P = TypeVar("P", bound=Frozen)


class Architecture(ABC, Generic[P]):
    """A family of networks.

    A network keeps its last layer an `nn.Linear` from features to classes, which `models.heads.find_head` finds. Its
    stages are direct children with stable names (`conv1`, `layer1`, ...), so that methods can address them.

    Args:
        params: hyper-parameters, validated.
    """

    Params: ClassVar[type[Frozen]]
    """Hyper-parameters; every field has a default."""
    smallest: ClassVar[int] = 8
    """Smallest height and width in pixels."""

    def __init__(self, params: P) -> None:
        self.params = params

    @abstractmethod
    def build(self, classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
        """A network from (B, *input_shape) normalised images to (B, classes) logits, on the CPU.

        Initial weights come from torch's global CPU generator alone, or from pretraining.
        """

    def skeleton(self, classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
        """The same network with any weights at all, for a checkpoint to be loaded into: nothing is downloaded."""
        return self.build(classes, input_shape)


def he_initialise(network: nn.Module) -> None:
    """Draw initial weights as He et al. (ICCV 2015, arXiv 1502.01852) do for ReLU networks.

    Convolutions are normal with variance 2 / fan_out, which keeps the scale of gradients, and have no bias. The last
    linear layer has no ReLU behind it and is normal with variance 1 / fan_in and bias 0. Batch norm starts as the
    identity.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1.0 / math.sqrt(module.in_features))
            nn.init.zeros_(module.bias)
