"""The Classifier: a network with its normalisation inside, its input contract, and honest pass counters.

It is the only thing that attacks, methods and evaluators see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robusteval.schema.records import Budget

MIN_BATCH = 16
"""Smallest batch the network sees in evaluation: from 16 images up, CPU kernels give bitwise the same logits for an
image whatever stands beside it; smaller batches are padded and the padding is cut off again."""


@dataclass
class PassCounter:
    """Passes of single examples, padding not counted.

    Attributes:
        forward: forward passes.
        backward: backward passes through the whole network, to the input or to the parameters.
    """

    forward: int = 0
    backward: int = 0

    def snapshot(self) -> Budget:
        """The counts so far."""
        return Budget(forward=self.forward, backward=self.backward)

    def since(self, start: Budget) -> Budget:
        """What was spent after `start`."""
        return Budget(forward=self.forward - start.forward, backward=self.backward - start.backward)


class Classifier(nn.Module):
    """A network over images in [0, 1] that normalises by itself.

    Args:
        network: maps (B, C, H, W) normalised float images to (B, classes) logits.
        classes: number of classes, at least 2.
        input_shape: (C, H, W).
        mean: C means on the [0, 1] scale.
        std: C positive standard deviations on the [0, 1] scale.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        classes: int,
        input_shape: tuple[int, int, int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        channels = input_shape[0]
        if classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, not {classes}")
        if len(mean) != channels or len(std) != channels:
            raise ValueError(f"mean and std need {channels} values each, one a channel")
        if min(std) <= 0:
            raise ValueError(f"std must be positive, not {tuple(std)}")
        self.network = network
        self.classes = classes
        self.input_shape = input_shape
        self.passes = PassCounter()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.mean.device

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W) in [0, 1]."""
        return self.classify(self.normalise(images))

    def normalise(self, images: Tensor) -> Tensor:
        """Pixels in [0, 1] to the network's own input space."""
        return (images - self.mean) / self.std

    def classify(self, normalised: Tensor) -> Tensor:
        """Logits of inputs that are normalised already; counted like `forward`."""
        n = normalised.shape[0]
        self.passes.forward += n
        if not self.training and 0 < n < MIN_BATCH:
            filler = normalised[:1].detach().expand(MIN_BATCH - n, *normalised.shape[1:])
            logits: Tensor = self.network(torch.cat([normalised, filler]))[:n]
        else:
            logits = self.network(normalised)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.passes.backward += gradient.shape[0]

    @contextmanager
    def frozen(self) -> Iterator[Classifier]:
        """Evaluation mode with no parameter gradients; on exit every module's mode and every flag is as before."""
        with self.parameters_frozen(), self.mode(training=False):
            yield self

    @contextmanager
    def mode(self, *, training: bool) -> Iterator[Classifier]:
        """Put all modules into training or evaluation mode; on exit each module has its own old mode back."""
        modes = [(module, module.training) for module in self.modules()]
        try:
            self.train(training)
            yield self
        finally:
            for module, was_training in modes:
                module.training = was_training

    @contextmanager
    def parameters_frozen(self) -> Iterator[Classifier]:
        """No parameter asks for gradients; on exit each has its own old flag back."""
        flags = [(parameter, parameter.requires_grad) for parameter in self.parameters()]
        try:
            for parameter, _ in flags:
                parameter.requires_grad_(False)
            yield self
        finally:
            for parameter, flag in flags:
                parameter.requires_grad_(flag)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Predicted labels (B,) int64, in evaluation mode."""
        with self.mode(training=False):
            return self(images).argmax(dim=1)
