"""A small convolutional network that trains adversarially in seconds on a CPU."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from robusteval.models.architectures import Architecture, he_initialise
from robusteval.schema.types import Frozen, PositiveInt


class SmallCnnNetwork(nn.Module):
    """Stem `conv1 bn1`, two stages `layer1 layer2` that halve the resolution and double the channels, `linear`.

    The last feature map is flattened, not averaged: on the validation digits at linf 0.1, 12 epochs of PGD training
    (seed 0) reached 76 % robust accuracy so, and 25 % with global average pooling.

    Args:
        width: channels of the stem.
        classes: number of logits.
        input_shape: (C, H, W).
    """

    def __init__(self, width: int, classes: int, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, breadth = input_shape
        self.conv1 = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.layer1 = _halving_stage(width, 2 * width)
        self.layer2 = _halving_stage(2 * width, 4 * width)
        self.linear = nn.Linear(4 * width * -(-height // 4) * -(-breadth // 4), classes)
        he_initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of normalised images (B, C, H, W)."""
        stem = self.relu(self.bn1(self.conv1(images)))
        logits: Tensor = self.linear(self.layer2(self.layer1(stem)).flatten(1))
        return logits


def _halving_stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1, bias=False),
            bn=nn.BatchNorm2d(outputs),
            relu=nn.ReLU(),
        )
    )


class SmallCnnParams(Frozen):
    """Hyper-parameters of the small CNN."""

    width: PositiveInt = 16
    """Channels after the first convolution; 16 costs 0.71 million multiply-adds for a 16 x 16 RGB image."""


class SmallCnn(Architecture[SmallCnnParams]):
    """Three 3 x 3 convolutions with batch norm and ReLU, and a linear layer."""

    Params = SmallCnnParams

    def build(self, classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
        """See `SmallCnnNetwork`."""
        return SmallCnnNetwork(self.params.width, classes, input_shape)
