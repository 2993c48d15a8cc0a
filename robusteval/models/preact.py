"""Networks of pre-activation blocks: PreActResNet-18 and WideResNet-d-k.

PreActResNet: He, Zhang, Ren and Sun, ECCV 2016, arXiv 1603.05027, with the 3 x 3 stem usual for 32 px images and the
final batch norm and ReLU that pre-activation calls for. WideResNet: Zagoruyko and Komodakis, BMVC 2016, arXiv
1605.07146.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field
from torch import Tensor, nn

from robusteval.models.architectures import Architecture, he_initialise
from robusteval.schema.types import Frozen, PositiveInt


class PreActivationBlock(nn.Module):
    """Batch norm and ReLU before each of two 3 x 3 convolutions.

    A block that changes resolution or channels has a 1 x 1 convolution as shortcut, applied to the activated input;
    any other adds its raw input.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: 1 or 2.
        dropout: probability of dropping an activation between the convolutions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.relu = nn.ReLU()
        self.shortcut: nn.Conv2d | None = None
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        active = self.relu(self.bn1(inputs))
        shortcut = inputs if self.shortcut is None else self.shortcut(active)
        output: Tensor = self.conv2(self.dropout(self.relu(self.bn2(self.conv1(active))))) + shortcut
        return output


class PreActivationNetwork(nn.Module):
    """Stem `conv1`, stages `layer1`, `layer2`, ..., final `bn`, global average, `linear`.

    Args:
        stem: channels of the stem.
        widths: channels of each stage; every stage but the first halves the resolution.
        blocks: blocks a stage.
        dropout: dropout probability inside the blocks.
        classes: number of logits.
        channels: image channels.
    """

    def __init__(
        self, stem: int, widths: Sequence[int], *, blocks: int, dropout: float, classes: int, channels: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, stem, kernel_size=3, padding=1, bias=False)
        self.stages: list[str] = []
        inputs = stem
        for position, outputs in enumerate(widths):
            first = PreActivationBlock(inputs, outputs, 2 if position else 1, dropout)
            rest = (PreActivationBlock(outputs, outputs, 1, dropout) for _ in range(blocks - 1))
            self.stages.append(f"layer{position + 1}")
            self.add_module(self.stages[-1], nn.Sequential(first, *rest))
            inputs = outputs
        self.bn = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(inputs, classes)
        he_initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of normalised images (B, C, H, W)."""
        maps = self.conv1(images)
        for name in self.stages:
            maps = self.get_submodule(name)(maps)
        logits: Tensor = self.linear(self.relu(self.bn(maps)).mean(dim=(2, 3)))
        return logits


class PreActResNet18Params(Frozen):
    """Hyper-parameters of PreActResNet-18."""

    width: PositiveInt = 64
    """Channels of the first stage; the others have 2, 4 and 8 times as many."""


class PreActResNet18(Architecture[PreActResNet18Params]):
    """Four stages of two pre-activation blocks; 11.2 million parameters."""

    Params = PreActResNet18Params

    def build(self, classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
        """See `PreActivationNetwork`."""
        width = self.params.width
        return PreActivationNetwork(
            width,
            [width, 2 * width, 4 * width, 8 * width],
            blocks=2,
            dropout=0.0,
            classes=classes,
            channels=input_shape[0],
        )


def _check_depth(depth: int) -> int:
    if depth < 10 or depth % 6 != 4:
        raise ValueError(f"a WideResNet has depth 6n + 4 (10, 16, 22, 28, 34, 40, ...), not {depth}")
    return depth


class WideResNetParams(Frozen):
    """Hyper-parameters of WideResNet-d-k."""

    depth: Annotated[PositiveInt, AfterValidator(_check_depth)] = 28
    """Depth d = 6n + 4: n blocks in each of three stages."""
    width: PositiveInt = 10
    """Widening factor k: the stages have 16k, 32k and 64k channels."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)] = 0.0
    """Dropout probability between the convolutions of a block."""


class WideResNet(Architecture[WideResNetParams]):
    """Three wide stages of pre-activation blocks; WideResNet-28-10 has 36.5 million parameters."""

    Params = WideResNetParams

    def build(self, classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
        """See `PreActivationNetwork`."""
        return PreActivationNetwork(
            16,
            [16 * self.params.width, 32 * self.params.width, 64 * self.params.width],
            blocks=(self.params.depth - 4) // 6,
            dropout=self.params.dropout,
            classes=classes,
            channels=input_shape[0],
        )
