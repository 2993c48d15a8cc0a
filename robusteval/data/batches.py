"""Image sets on a device: uint8 in memory, float in [0, 1] per batch, in an order fixed by a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusteval.data.computed import ComputedImages
from robusteval.data.imageset import ImageSet
from robusteval.schema.digest import stable_int

RESIDENT_BYTES = 4 * 2**30
"""Images up to this size live on the accelerator; larger sets stay in main memory or on disk."""


@dataclass(frozen=True)
class Rows:
    """Where the examples of one process stand in a batch that several processes share.

    Attributes:
        first: row of the first one.
        total: examples of the whole batch.
        generator: draws what one process would draw for the whole batch; the same state in every process.
    """

    first: int
    total: int
    generator: torch.Generator | None


@dataclass(frozen=True)
class Batch:
    """B examples on a device.

    Attributes:
        images: (B, C, H, W) float32 in [0, 1].
        labels: (B,) int64.
        keys: (B,) int64 hashes of the example ids.
        domains: (B,) int64 positions in `DeviceSet.domain_names`.
        rows: where these examples stand in the batch of all processes; None if they are the whole batch.
    """

    images: Tensor
    labels: Tensor
    keys: Tensor
    domains: Tensor
    rows: Rows | None = None

    def __len__(self) -> int:
        return int(self.labels.shape[0])


class DeviceSet:
    """A whole image set, served in batches on one device.

    Args:
        data: the images.
        device: where batches go.
        resident_bytes: a set of more bytes stays on the CPU as uint8, memory-mapped if it came so, and each batch is
            moved by itself; what a batch holds does not depend on it. Images that are computed are kept up to this
            size, beyond it they are computed again for each batch.
    """

    def __init__(
        self, data: ImageSet, device: torch.device | str = "cpu", *, resident_bytes: int = RESIDENT_BYTES
    ) -> None:
        self.classes = data.classes
        self.ids = data.ids
        self.domain_names = tuple(dict.fromkeys(data.domains))
        position = {name: index for index, name in enumerate(self.domain_names)}
        fits = data.images.nbytes <= resident_bytes
        self.images: Tensor | ComputedImages
        if isinstance(data.images, ComputedImages):
            self.images = data.images.all(torch.device(device)) if fits else data.images
        else:
            self.images = torch.from_numpy(_writable(data.images)).to(device if fits else "cpu")
        self.labels = torch.from_numpy(_writable(data.labels)).to(device)
        self.keys = torch.from_numpy(_writable(data.keys)).to(device)
        self.domains = torch.tensor([position[name] for name in data.domains], dtype=torch.int64, device=device)
        # Division by a number becomes a multiplication by its rounded inverse on some devices; by a tensor it is exact.
        self._white = torch.tensor(255.0, device=device)

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    @property
    def device(self) -> torch.device:
        """Where batches are."""
        return self.labels.device

    @property
    def resident(self) -> bool:
        """Whether the images live where the batches go."""
        return self._home == self.device

    @property
    def _home(self) -> torch.device:
        return self.images.device if isinstance(self.images, Tensor) else torch.device("cpu")

    def batch(self, positions: Tensor | slice) -> Batch:
        """The examples at `positions`; indices of a set that is not resident belong on the CPU."""
        here = positions.to(self.device) if isinstance(positions, Tensor) else positions
        return Batch(
            images=self._pixels(positions).to(self.device, non_blocking=True).to(torch.float32).div_(self._white),
            labels=self.labels[here],
            keys=self.keys[here],
            domains=self.domains[here],
        )

    def _pixels(self, positions: Tensor | slice) -> Tensor:
        where = positions.to(self._home) if isinstance(positions, Tensor) else positions
        if isinstance(self.images, ComputedImages):
            chosen = np.arange(*where.indices(len(self))) if isinstance(where, slice) else where.numpy()
            return self.images.compute(chosen, self.device)
        images = self.images[where]
        return images if self.resident or self.device.type != "cuda" else images.pin_memory()

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """All examples in their own order."""
        for start in range(0, len(self), batch_size):
            yield self.batch(slice(start, start + batch_size))

    def shuffled(self, batch_size: int, *, seed: int, epoch: int) -> Iterator[Batch]:
        """All examples in an order that depends on (seed, epoch) alone, the same on every device.

        A last batch of one example is dropped: batch statistics of one image are not defined.
        """
        generator = torch.Generator().manual_seed(stable_int("order", seed, epoch))
        order = torch.randperm(len(self), generator=generator).to(self._home)
        for start in range(0, len(self), batch_size):
            positions = order[start : start + batch_size]
            if len(positions) > 1 or len(self) == 1:
                yield self.batch(positions)

    def drawn(self, batch_size: int, *, seed: int, epoch: int, steps: int) -> Iterator[Batch]:
        """`steps` batches with equally many examples of every domain, drawn with replacement.

        Raises:
            ValueError: the batch does not divide among the domains.
        """
        share, rest = divmod(batch_size, len(self.domain_names))
        if rest or not share:
            raise ValueError(f"a batch of {batch_size} does not divide among {len(self.domain_names)} domains")
        generator = torch.Generator().manual_seed(stable_int("drawn", seed, epoch))
        domains = self.domains.cpu()
        members = [torch.nonzero(domains == index).flatten() for index in range(len(self.domain_names))]
        columns = [own[torch.randint(len(own), (steps, share), generator=generator)] for own in members]
        for positions in torch.cat(columns, dim=1).to(self._home):
            yield self.batch(positions)

    def balanced(self, batch_size: int, *, seed: int, epoch: int) -> Iterator[Batch]:
        """Batches with equally many examples of every domain, one domain after the other within a batch.

        The largest domain is seen once, up to what does not fill a batch; smaller ones are repeated in one order.

        Raises:
            ValueError: the batch is smaller than the number of domains.
        """
        share = batch_size // len(self.domain_names)
        if share < 1:
            raise ValueError(f"a batch of {batch_size} cannot hold {len(self.domain_names)} domains")
        generator = torch.Generator().manual_seed(stable_int("balanced order", seed, epoch))
        domains = self.domains.cpu()
        members = [torch.nonzero(domains == index).flatten() for index in range(len(self.domain_names))]
        orders = [own[torch.randperm(len(own), generator=generator)] for own in members]
        steps = max(1, max(len(own) for own in orders) // share)
        columns = [own[torch.arange(steps * share) % len(own)].reshape(steps, share) for own in orders]
        for positions in torch.cat(columns, dim=1).to(self._home):
            yield self.batch(positions)


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    """The array itself, or a copy where torch could not share its memory."""
    return array if array.flags.writeable else array.copy()
