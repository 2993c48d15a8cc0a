"""The Classifier: a network with its normalisation inside, its input contract, and honest pass counters.

It is the only thing that attacks, methods and evaluators see.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robusteval.schema.errors import CellError
from robusteval.schema.records import Budget

MIN_BATCH = 16
"""Smallest batch the network sees in evaluation. From 16 images up, on one CPU thread, logits and input gradients of
an image are bitwise the same whatever stands beside it and in whatever order (convolutions, batch norm, pooling and
linear layers of every architecture here, measured for 16 to 100 images); below 16 other kernels are chosen, so smaller
batches are padded and the padding is cut off again."""


@dataclass
class PassCounter:
    """Passes of single examples, padding not counted.

    Attributes:
        forward: forward passes.
        backward: backward passes through the network, to the input or to the parameters. Each traversal that enters
            the network from its logits counts, so three gradients of one forward pass are three backward passes. A
            double backprop (the gradient of a gradient) is two: one for the gradient, one when the outer gradient
            reaches the logits again, as it does for every loss that is not linear in them.
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

    `mean` and `std` are buffers outside the state dict: they move with the model and travel in checkpoint metadata.

    Args:
        network: maps (B, C, H, W) normalised float images to (B, classes) logits.
        classes: number of classes, at least 2.
        input_shape: (C, H, W).
        mean: C means on the [0, 1] scale.
        std: C positive standard deviations on the [0, 1] scale.

    Raises:
        ValueError: fewer than 2 classes, or mean and std that do not fit the channels.
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
        if not min(std) > 0:
            raise ValueError(f"std must be positive, not {tuple(std)}")
        self.network = network
        self.classes = classes
        self.input_shape = (int(input_shape[0]), int(input_shape[1]), int(input_shape[2]))
        self.passes = PassCounter()
        self.least_batch = self.least_logit_batch = MIN_BATCH
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.mean.device

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W) in [0, 1].

        Raises:
            CellError: the images have another shape than `input_shape`, are not floating point, or are wider than the
                model; or the network does not return one logit a class.
        """
        return self.classify(self.normalise(images))

    def normalise(self, images: Tensor) -> Tensor:
        """Pixels in [0, 1] to the network's own input space."""
        self._check_input(images)
        return (images - self.mean) / self.std

    def classify(self, normalised: Tensor) -> Tensor:
        """Logits of inputs that are normalised already; counted like `forward`."""
        self._check_input(normalised)
        n = normalised.shape[0]
        self.passes.forward += n
        least = self.least_batch if torch.is_grad_enabled() else self.least_logit_batch
        if not self.training and n < least:
            filler = normalised[:1].detach() if n else normalised.new_zeros(1, *self.input_shape)
            logits = self.network(torch.cat([normalised, filler.expand(least - n, -1, -1, -1)]))
            self._check_logits(logits, least)
            logits = logits[:n]
        else:
            logits = self.network(normalised)
            self._check_logits(logits, n)
        return self._counted(logits, n)

    def _check_input(self, images: Tensor) -> None:
        if images.dim() != 4 or tuple(images.shape[1:]) != self.input_shape:
            raise CellError(
                f"images of shape {tuple(images.shape)} do not fit the model, which takes (B, "
                f"{', '.join(map(str, self.input_shape))}); resize them or set the input shape of the architecture"
            )
        if not images.is_floating_point() or images.element_size() > self.mean.element_size():
            raise CellError(
                f"images are {images.dtype}, the model takes {self.mean.dtype} in [0, 1]; "
                f"convert them (uint8 pixels: images.float() / 255)"
            )

    def _check_logits(self, logits: object, n: int) -> None:
        if not isinstance(logits, Tensor) or tuple(logits.shape) != (n, self.classes):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise CellError(
                f"the network returned {found} for {n} images, not logits ({n}, {self.classes}); "
                f"check its number of classes, and wrap it if it returns several outputs"
            )
        if not logits.is_floating_point():
            raise CellError(f"the network returned {logits.dtype}; return logits as floating point numbers")

    def _counted(self, logits: Tensor, n: int) -> Tensor:
        # A hook on the node runs when gradients enter the network; a hook on the tensor would also run for the
        # gradient of a loss with respect to the logits alone, which costs no pass.
        if logits.grad_fn is not None:
            passes = self.passes

            def count(_gradients: object) -> None:
                passes.backward += n

            logits.grad_fn.register_prehook(count)
        return logits

    def restricted(self, labels: Sequence[int]) -> Classifier:
        """This classifier asked among fewer classes: a view whose class j is class `labels[j]`.

        Weights, modes, normalisation and pass counter are shared, and its logits are bitwise those of this classifier.

        Args:
            labels: distinct classes, at least 2.

        Raises:
            ValueError: fewer than 2 classes, one twice, or one that the model does not have.
        """
        if len(labels) < 2 or len(set(labels)) != len(labels) or not set(labels) <= set(range(self.classes)):
            raise ValueError(f"labels must be 2 or more of 0..{self.classes - 1}, each once, not {tuple(labels)}")
        view = copy.copy(self)
        view._modules = dict(self._modules)
        view.network = ChosenLogits(self.network, self.classes, torch.tensor(labels, device=self.device))
        view.network.train(self.network.training)
        view.classes = len(labels)
        return view

    @contextmanager
    def frozen(self) -> Iterator[Classifier]:
        """Evaluation mode with no parameter gradients; on exit modes, flags, gradients and buffers are as before."""
        with self.parameters_frozen(), self.buffers_kept(), self.mode(training=False):
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
        """No parameter asks for gradients or shows one; on exit each has its old flag and its old gradient back."""
        before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in self.parameters()]
        try:
            for parameter, _, _ in before:
                parameter.requires_grad_(False)
                parameter.grad = None
            yield self
        finally:
            for parameter, flag, gradient in before:
                parameter.requires_grad_(flag)
                parameter.grad = gradient

    @contextmanager
    def buffers_kept(self) -> Iterator[Classifier]:
        """Whatever runs inside, buffers (batch-norm statistics) are bitwise as before on exit."""
        before = [
            (module, name, buffer, buffer.detach().clone())
            for module in self.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        try:
            yield self
        finally:
            for module, name, buffer, content in before:
                module._buffers[name] = buffer
                # Through `data`, so that a graph built inside does not see a buffer it needs as modified.
                buffer.data.copy_(content)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Predicted labels (B,) int64, in evaluation mode."""
        with self.mode(training=False):
            labels: Tensor = self(images).argmax(dim=1)
        return labels


class ChosenLogits(nn.Module):
    """Some of a network's logits.

    Args:
        network: maps inputs to logits (B, `classes`).
        classes: number of its logits.
        chosen: (K,) int64 columns that are kept.
    """

    chosen: Tensor

    def __init__(self, network: nn.Module, classes: int, chosen: Tensor) -> None:
        super().__init__()
        self.network = network
        self.classes = classes
        self.register_buffer("chosen", chosen, persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, K)."""
        # Unlike the choice, this refuses more logits than there are classes; without a branch it can be traced.
        logits: Tensor = self.network(inputs).unflatten(1, (self.classes,)).index_select(1, self.chosen)
        return logits
