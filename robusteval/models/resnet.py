"""Residual networks for CIFAR (He, Zhang, Ren and Sun, CVPR 2016, arXiv 1512.03385, section 4.2)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import pad

from robusteval.models.architectures import Architecture, he_initialise
from robusteval.schema.types import Frozen


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut without parameters (option A of the paper).

    Where the block halves the resolution, the shortcut takes every second pixel and fills the new channels with
    zeros, half of them before and half after the old ones.

    Args:
        inputs: channels in.
        outputs: channels out, `inputs` or twice as many.
        stride: 1 or 2.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.stride = stride
        self.filling = (outputs - inputs) // 2

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(inputs)))))
        shortcut = inputs
        if self.stride > 1 or self.filling:
            shortcut = pad(inputs[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.filling, self.filling))
        output: Tensor = self.relu(residual + shortcut)
        return output


class CifarResNet(nn.Module):
    """Stem of 16 channels, three stages of 16, 32 and 64 channels, global average, linear layer.

    Args:
        blocks: basic blocks a stage, n in the paper's depth 6n + 2.
        classes: number of logits.
        channels: image channels.
    """

    def __init__(self, blocks: int, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, classes)
        he_initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of normalised images (B, C, H, W)."""
        stem = self.relu(self.bn1(self.conv1(images)))
        maps = self.layer3(self.layer2(self.layer1(stem)))
        logits: Tensor = self.linear(maps.mean(dim=(2, 3)))
        return logits


def _stage(inputs: int, outputs: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


class ResNetParams(Frozen):
    """A CIFAR ResNet has no hyper-parameters but its depth, which is in its name."""


class _ResNet(Architecture[ResNetParams]):
    Params = ResNetParams
    blocks: ClassVar[int]

    def build(self, classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
        """See `CifarResNet`."""
        return CifarResNet(self.blocks, classes, input_shape[0])


class ResNet20(_ResNet):
    """0.27 million parameters."""

    blocks = 3


class ResNet32(_ResNet):
    """0.46 million parameters."""

    blocks = 5


class ResNet44(_ResNet):
    """0.66 million parameters."""

    blocks = 7


class ResNet56(_ResNet):
    """0.85 million parameters."""

    blocks = 9
