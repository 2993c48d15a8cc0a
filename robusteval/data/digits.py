"""The 1,797 handwritten digits that scikit-learn carries, in eight domains.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998
(its test half: 8 x 8 counts of ink from 0 to 16).
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from robusteval.data.domains import DOMAINS, render, upsample
from robusteval.data.imageset import Dataset, ImageSet, Split, canonical_rank
from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import DataError, UnknownNameError, unknown_name
from robusteval.schema.types import Frozen

SOURCES = 1797
"""Digits in all."""
SPLIT_SIZES: tuple[tuple[Split, int], ...] = (("train", 1077), ("validation", 270), ("test", 450))
"""Sources per split: 60, 15 and 25 percent."""
PIXELS_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
"""SHA-256 of the (1797, 8, 8) counts as bytes, followed by the 1,797 labels as bytes."""


class DigitsParams(Frozen):
    """The digits have no parameters."""


class Digits(Dataset[DigitsParams]):
    """Real handwritten digits, 16 x 16 RGB, in the eight domains of `robusteval.data.domains`.

    Sources are put into the order of a hash of their index, once and for all; the first 1,077 are for training, the
    next 270 for validation and the last 450 for test, in every domain alike, so that no domain shows a model the test
    sources of another. An id is `<domain>/<index>`, its group the index (four digits).
    """

    Params: ClassVar[type[Frozen]] = DigitsParams
    statistics = ((0.306,) * 3, (0.319,) * 3)

    @property
    def revision(self) -> str:
        """Version of sources, split and domains together."""
        return "digits-1"

    @property
    def classes(self) -> tuple[str, ...]:
        """`0` to `9`."""
        return tuple("0123456789")

    @property
    def domains(self) -> tuple[str, ...]:
        """`upright` and seven domains made from it."""
        return tuple(DOMAINS)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, 16, 16)."""
        return (3, 16, 16)

    def ids(self, domain: str, split: Split) -> tuple[str, ...]:
        """Example ids in canonical order; index arithmetic only."""
        self._check(domain)
        return tuple(f"{domain}/{index:04d}" for index in self._indices[split])

    def load(self, domain: str, split: Split, n: int | None = None) -> ImageSet:
        """Draw the first `n` examples.

        Raises:
            UnknownNameError: no such domain.
            DataError: this scikit-learn carries other digits.
        """
        ids = self.ids(domain, split)[:n]
        groups = tuple(name.rpartition("/")[2] for name in ids)
        where = np.array([int(group) for group in groups], dtype=np.int64)
        counts, labels = self._sources
        ink = upsample(counts[where].astype(np.float64) / 16.0)
        return ImageSet(
            images=render(domain, ink, groups, revision=self.revision),
            labels=labels[where],
            ids=ids,
            groups=groups,
            domains=(domain,) * len(ids),
            classes=self.classes,
        )

    def _check(self, domain: str) -> None:
        if domain not in DOMAINS:
            raise UnknownNameError(unknown_name("domain of digits", domain, DOMAINS))

    @cached_property
    def _indices(self) -> dict[Split, tuple[int, ...]]:
        order = sorted(range(SOURCES), key=lambda index: canonical_rank(f"{index:04d}"))
        splits: dict[Split, tuple[int, ...]] = {}
        start = 0
        for split, size in SPLIT_SIZES:
            splits[split] = tuple(order[start : start + size])
            start += size
        return splits

    @cached_property
    def _sources(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        from sklearn.datasets import load_digits

        bundle = load_digits()
        return checked_sources(np.asarray(bundle.images), np.asarray(bundle.target))


def checked_sources(
    images: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Counts (1797, 8, 8) uint8 and labels (1797,) int64, after a check that they are the pinned ones.

    Raises:
        DataError: they are not.
    """
    counts, targets = images.astype(np.uint8), labels.astype(np.int64)
    found = sha256_hex(counts.tobytes() + targets.astype(np.uint8).tobytes())
    if found != PIXELS_SHA256:
        raise DataError(
            f"dataset 'digits': the digits in this scikit-learn have SHA-256 {found[:12]}, not {PIXELS_SHA256[:12]}; "
            f"results would not be comparable; install a released scikit-learn"
        )
    return counts, targets
