"""The contract of a shift: uint8 images in, uint8 images of the same shape out, example by example.

What comes out for an example depends on its pixels, its key, the seed and the parameters alone. `Shift.__call__` is
final: it checks the inputs and hands `run` pieces of the batch that stay in a processor's cache, so a shift must not
let the examples of a piece influence each other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar, final

import torch
from torch import Tensor

from robusteval.schema.errors import CellError
from robusteval.schema.params import canonical_params, checked_params
from robusteval.schema.types import Component, Frozen
from robusteval.shifts import SHIFTS
from robusteval.shifts.draws import Draws

P = TypeVar("P", bound=Frozen)

_CACHED, _LAUNCHED = 2**18, 2**24
"""Pixel values worked on at once: as many as stay in a processor's cache, and enough to fill an accelerator."""
LEAST_SIDE = 8
"""Smallest image side in pixels."""


class Shift(ABC, Generic[P]):
    """A change of the images that leaves their labels as they are.

    Args:
        params: hyper-parameters, validated.
    """

    name: ClassVar[str]
    """Registered name, used in messages."""
    Params: ClassVar[type[Frozen]]
    """Hyper-parameters."""
    random: ClassVar[bool] = False
    """Whether another seed or key gives another image."""

    def __init__(self, params: P) -> None:
        self.params = params

    @property
    def domain(self) -> str:
        """Name of the shifted domain in tables."""
        return self.name

    @property
    def scope(self) -> str:
        """What the random fields are drawn for; with the seed and the key of an example it fixes them."""
        return f"shift/{self.domain}"

    @final
    @torch.no_grad()
    def __call__(self, images: Tensor, *, keys: Tensor, seed: int) -> Tensor:
        """Shift (B, 3, H, W) uint8 images.

        Args:
            images: on any device; left as they are.
            keys: (B,) int64 hashes of the example ids, on the same device.
            seed: evaluation seed.

        Returns:
            (B, 3, H, W) uint8 on the same device.

        Raises:
            CellError: the inputs are not what is asked for.
        """
        self._check(images, keys)
        if not len(images):
            return images.clone()
        piece = self.piece(images)
        if len(images) <= piece:
            return self.run(images.contiguous(), Draws(keys, seed, self.scope)).contiguous()
        shifted = torch.empty_like(images, memory_format=torch.contiguous_format)
        for start in range(0, len(images), piece):
            part = slice(start, start + piece)
            shifted[part] = self.run(images[part].contiguous(), Draws(keys[part], seed, self.scope))
        return shifted

    def _check(self, images: Tensor, keys: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise CellError(
                f"shift {self.name!r}: images must be (B, 3, H, W) uint8, not {tuple(images.shape)} {images.dtype}; "
                "repeat a grey channel three times"
            )
        if min(images.shape[2:]) < LEAST_SIDE:
            raise CellError(f"shift {self.name!r}: images must have {LEAST_SIDE} pixels a side, not {images.shape[2:]}")
        if keys.shape != images.shape[:1] or keys.dtype != torch.int64 or keys.device != images.device:
            raise CellError(
                f"shift {self.name!r}: keys must be ({len(images)},) int64 on {images.device}, "
                f"not {tuple(keys.shape)} {keys.dtype} on {keys.device}"
            )

    def piece(self, images: Tensor) -> int:
        """How many of the images `run` takes at once; what comes out does not depend on it."""
        values = _CACHED if images.device.type == "cpu" else _LAUNCHED
        return max(1, values // max(1, images[:1].numel()))

    @abstractmethod
    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """Shift a contiguous piece (B, 3, H, W) uint8 of a batch, each example for itself."""


def build_shift(component: Component) -> Shift[Any]:
    """The shift that `component` names.

    Raises:
        UnknownNameError: the name is not registered.
        UsageError: a parameter is wrong.
    """
    shift = SHIFTS.load(component.name)
    return shift(checked_params(f"shift {component.name!r}", shift.Params, component.params))


def resolve_shift(component: Component) -> Component:
    """The same shift with every parameter present and in canonical form.

    Raises:
        UnknownNameError: the name is not registered.
        UsageError: a parameter is wrong.
    """
    return Component(name=component.name, params=canonical_params(build_shift(component).params))
