"""Image sets on a device: uint8 in memory, float in [0, 1] per batch, in an order fixed by a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from robusteval.data.imageset import ImageSet
from robusteval.schema.digest import stable_int


@dataclass(frozen=True)
class Batch:
    """B examples on a device.

    Attributes:
        images: (B, C, H, W) float32 in [0, 1].
        labels: (B,) int64.
        keys: (B,) int64 hashes of the example ids.
        domains: (B,) int64 positions in `DeviceSet.domain_names`.
    """

    images: Tensor
    labels: Tensor
    keys: Tensor
    domains: Tensor

    def __len__(self) -> int:
        return int(self.labels.shape[0])


class DeviceSet:
    """A whole image set on one device.

    Args:
        data: the images.
        device: where they go, as uint8.
    """

    def __init__(self, data: ImageSet, device: torch.device | str = "cpu") -> None:
        self.classes = data.classes
        self.ids = data.ids
        self.domain_names = tuple(dict.fromkeys(data.domains))
        position = {name: index for index, name in enumerate(self.domain_names)}
        self.images = torch.from_numpy(data.images).to(device)
        self.labels = torch.from_numpy(data.labels).to(device)
        self.keys = torch.from_numpy(data.keys).to(device)
        self.domains = torch.tensor([position[name] for name in data.domains], dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    @property
    def device(self) -> torch.device:
        """Where the images live."""
        return self.images.device

    def batch(self, positions: Tensor | slice) -> Batch:
        """The examples at `positions`."""
        return Batch(
            images=self.images[positions].to(torch.float32).div_(255.0),
            labels=self.labels[positions],
            keys=self.keys[positions],
            domains=self.domains[positions],
        )

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """All examples in their own order."""
        for start in range(0, len(self), batch_size):
            yield self.batch(slice(start, start + batch_size))

    def shuffled(self, batch_size: int, *, seed: int, epoch: int) -> Iterator[Batch]:
        """All examples in an order that depends on (seed, epoch) alone, the same on every device.

        A last batch of one example is dropped: batch statistics of one image are not defined.
        """
        generator = torch.Generator().manual_seed(stable_int("order", seed, epoch))
        order = torch.randperm(len(self), generator=generator).to(self.device)
        for start in range(0, len(self), batch_size):
            positions = order[start : start + batch_size]
            if len(positions) > 1 or len(self) == 1:
                yield self.batch(positions)
