"""Datasets that others stored as arrays: `.npy` files that are mapped, checked, and never unpickled."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from robusteval.data.imageset import Dataset, ImageSet, Split, canonical_rank
from robusteval.schema.errors import DataError, UnknownNameError, unknown_name
from robusteval.schema.types import Frozen

T = TypeVar("T", bound=Frozen)
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


def open_array(path: Path, kind: str, tail: tuple[int, ...]) -> NDArray[Any]:
    """Map a `.npy` file into memory; nothing in it is run.

    Args:
        path: the file.
        kind: numpy's letter for what it holds: `u` for uint8 pixels, `i` for whole numbers of any width.
        tail: shape behind the first axis.

    Raises:
        DataError: it is missing, cut off, holds objects, or has another shape or type.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; put the published file there") from None
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).split(". ")[0].rstrip(".")
        raise DataError(f"{path}: is no whole array of numbers ({reason}); get the file again") from None
    fits = array.dtype == np.uint8 if kind == "u" else array.dtype.kind in "iu"
    if not fits or array.ndim != len(tail) + 1 or array.shape[1:] != tail:
        expected = f"(N{''.join(f', {side}' for side in tail)}) {'uint8' if kind == 'u' else 'whole numbers'}"
        raise DataError(f"{path}: holds {array.shape} {array.dtype}, not {expected}; get the file again")
    return array


def check_length(path: Path, found: int, expected: int) -> None:
    """Refuse a file of the wrong length.

    Raises:
        DataError: it is of the wrong length.
    """
    if found != expected:
        raise DataError(f"{path}: holds {found} examples, not {expected}; get the file again")


def check_labels(path: Path, labels: NDArray[Any], classes: int) -> Labels:
    """Labels as int64.

    Raises:
        DataError: one lies outside [0, classes).
    """
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise DataError(f"{path}: labels must lie in [0, {classes}), not up to {labels.max()}; get the file again")
    return np.asarray(labels).astype(np.int64)


class TestArrays(Dataset[T]):
    """Domains of test images that lie in arrays (N, H, W, 3), in the order in which they were published.

    An id is `<domain>/<index>`; a group names the image that others were made from.
    """

    __test__ = False

    @abstractmethod
    def _length(self, domain: str) -> int:
        """Number of examples of a domain."""

    @abstractmethod
    def _arrays(self, domain: str) -> tuple[Pixels, Labels]:
        """Pixels (N, H, W, 3) and labels (N,) of a domain."""

    @abstractmethod
    def _group(self, domain: str, index: int) -> str:
        """What an example was made from."""

    def ids(self, domain: str, split: Split) -> tuple[str, ...]:
        """Ids in canonical order; there is a test split only."""
        self._check(domain)
        return tuple(f"{domain}/{index:05d}" for index in self._order(domain)) if split == "test" else ()

    def load(self, domain: str, split: Split, n: int | None = None) -> ImageSet:
        """The first `n` examples.

        Raises:
            UnknownNameError: no such domain.
            DataError: a file is missing, damaged or of the wrong length.
        """
        ids = self.ids(domain, split)[:n]
        order = np.array(self._order(domain)[: len(ids)], dtype=np.int64)
        pixels, labels = self._arrays(domain)
        return ImageSet(
            images=np.ascontiguousarray(pixels[order].transpose(0, 3, 1, 2)),
            labels=labels[order],
            ids=ids,
            groups=tuple(self._group(domain, int(index)) for index in order),
            domains=(domain,) * len(ids),
            classes=self.classes,
        )

    def _check(self, domain: str) -> None:
        if domain not in self.domains:
            raise UnknownNameError(unknown_name("domain", domain, self.domains))

    def _order(self, domain: str) -> list[int]:
        groups = [self._group(domain, index) for index in range(self._length(domain))]
        known = self._orders.get((domain, len(groups)))
        if known is None:
            known = sorted(range(len(groups)), key=lambda index: canonical_rank(groups[index]))
            self._orders[domain, len(groups)] = known
        return known

    @cached_property
    def _orders(self) -> dict[tuple[str, int], list[int]]:
        return {}
