"""Images that are computed when they are asked for, so that a set of any size streams through without being stored."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHUNK = 256
"""Images computed at a time when all of them are wanted."""


class ComputedImages(ABC):
    """N images that look like an (N, C, H, W) uint8 array from outside.

    What an image looks like depends on its position alone, never on what is computed along with it.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""

    @abstractmethod
    def compute(self, positions: NDArray[np.int64], device: torch.device) -> Tensor:
        """The images at `positions`: (B, C, H, W) uint8 on `device`."""

    @property
    def nbytes(self) -> int:
        """Bytes that all images would take."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, where: NDArray[np.int64]) -> ComputedImages:
        """Some of the images, still to be computed."""
        return SelectedImages(self, where)

    def all(self, device: torch.device) -> Tensor:
        """Every image on `device`: (N, C, H, W) uint8."""
        positions = np.arange(len(self), dtype=np.int64)
        parts = [self.compute(positions[start : start + CHUNK], device) for start in range(0, len(self), CHUNK)]
        return torch.cat(parts) if parts else torch.empty(self.shape, dtype=torch.uint8, device=device)


class StoredImages(ComputedImages):
    """An array among computed images."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """See `ComputedImages.shape`."""
        return self._array.shape

    def compute(self, positions: NDArray[np.int64], device: torch.device) -> Tensor:
        """See `ComputedImages.compute`."""
        return torch.from_numpy(self._array[positions]).to(device)


class SelectedImages(ComputedImages):
    """Some of other images, in another order."""

    def __init__(self, images: ComputedImages, positions: NDArray[np.int64]) -> None:
        self._images, self._positions = images, positions

    @property
    def shape(self) -> tuple[int, ...]:
        """See `ComputedImages.shape`."""
        return (len(self._positions), *self._images.shape[1:])

    def compute(self, positions: NDArray[np.int64], device: torch.device) -> Tensor:
        """See `ComputedImages.compute`."""
        return self._images.compute(self._positions[positions], device)


def chosen_from(array: NDArray[np.uint8], positions: Sequence[int]) -> ComputedImages:
    """Some images of an array that is not copied, such as a memory-mapped file."""
    return SelectedImages(StoredImages(array), np.asarray(positions, dtype=np.int64))


class JoinedImages(ComputedImages):
    """Several sets of images, one after the other."""

    def __init__(self, parts: Sequence[NDArray[np.uint8] | ComputedImages]) -> None:
        if len({part.shape[1:] for part in parts}) != 1:
            raise ValueError(f"images differ in shape: {sorted({part.shape[1:] for part in parts})}")
        self._parts = [part if isinstance(part, ComputedImages) else StoredImages(part) for part in parts]
        self._ends = np.cumsum([len(part) for part in self._parts])

    @property
    def shape(self) -> tuple[int, ...]:
        """See `ComputedImages.shape`."""
        return (int(self._ends[-1]), *self._parts[0].shape[1:])

    def compute(self, positions: NDArray[np.int64], device: torch.device) -> Tensor:
        """See `ComputedImages.compute`."""
        owners = np.searchsorted(self._ends, positions, side="right")
        found = torch.empty((len(positions), *self.shape[1:]), dtype=torch.uint8, device=device)
        for owner in np.unique(owners):
            here = np.flatnonzero(owners == owner)
            begin = self._ends[owner] - len(self._parts[owner])
            found[torch.from_numpy(here).to(device)] = self._parts[owner].compute(positions[here] - begin, device)
        return found
