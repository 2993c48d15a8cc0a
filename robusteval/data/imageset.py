"""Images with stable ids, in memory or memory-mapped, and the contract of a dataset. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from robusteval.schema.digest import ids_digest, stable_int
from robusteval.schema.registry import load_target
from robusteval.schema.types import Frozen

if TYPE_CHECKING:
    from robusteval.data.computed import ComputedImages

Split = Literal["train", "validation", "test"]
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Per-channel mean and standard deviation of pixels, on the [0, 1] scale."""
P = TypeVar("P", bound=Frozen)

IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of the training images of ImageNet, with which most published backbones normalise."""

COPIED_BYTES = 2 * 2**30
"""Up to this size images of a memory-mapped file are copied into main memory where they do not lie side by side;
beyond it they are read batch by batch."""


def canonical_rank(group: str) -> int:
    """Position of a group in the canonical order: a hash of its name, in [0, 2**63)."""
    return stable_int("group", group)


@dataclass(frozen=True)
class ImageSet:
    """An ordered set of labelled images.

    Attributes:
        images: (N, C, H, W) uint8, stored or still to be computed.
        labels: (N,) int64, in [0, len(classes)).
        ids: N distinct example ids; the id, not the position, keys all evaluation noise.
        groups: N names of what an image was made from; images of one group are not independent draws, so
            intervals cluster by group. Equal to `ids` where every image stands alone.
        domains: N domain names.
        classes: class names.
        subsets: labels of each domain whose examples are classified among fewer classes than all; see
            `Dataset.class_subset`.

    Raises:
        ValueError: the parts do not belong together.
    """

    images: NDArray[np.uint8] | ComputedImages
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    domains: tuple[str, ...]
    classes: tuple[str, ...]
    subsets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ValueError(f"images must be (N, C, H, W) uint8, not {self.images.shape} {self.images.dtype}")
        if self.labels.dtype != np.int64:
            raise ValueError(f"labels must be int64, not {self.labels.dtype}")
        lengths = {len(part) for part in (self.images, self.labels, self.ids, self.groups, self.domains)}
        if len(lengths) != 1:
            raise ValueError(f"images, labels, ids, groups and domains differ in length: {sorted(lengths)}")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("an example id occurs twice")
        if len(self.labels) and not (self.labels.min() >= 0 and self.labels.max() < len(self.classes)):
            raise ValueError(f"labels must lie in [0, {len(self.classes)})")
        for domain, labels in self.subsets.items():
            here = self.labels[[name == domain for name in self.domains]]
            if not np.isin(here, labels).all():
                raise ValueError(f"domain {domain!r} has an example of a class outside its subset of classes")

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def keys(self) -> NDArray[np.int64]:
        """(N,) int64: a stable hash of each id, for counter-based noise."""
        return np.array([stable_int("example", name) for name in self.ids], dtype=np.int64)

    @cached_property
    def ids_digest(self) -> str:
        """Digest of the ordered ids."""
        return ids_digest(self.ids)

    @property
    def domain_counts(self) -> tuple[tuple[str, int], ...]:
        """Domain names with their number of examples, in order of first appearance."""
        counts: dict[str, int] = {}
        for name in self.domains:
            counts[name] = counts.get(name, 0) + 1
        return tuple(counts.items())

    def take(self, positions: Sequence[int] | NDArray[np.int64]) -> ImageSet:
        """The examples at `positions`, in that order."""
        where = np.asarray(positions, dtype=np.int64)
        return ImageSet(
            images=self.images[where],
            labels=self.labels[where],
            ids=tuple(self.ids[i] for i in where),
            groups=tuple(self.groups[i] for i in where),
            domains=tuple(self.domains[i] for i in where),
            classes=self.classes,
            subsets=self.subsets,
        )

    @staticmethod
    def concatenate(parts: Sequence[ImageSet]) -> ImageSet:
        """Join sets that share their classes, in the given order.

        A single set stays as it is, without a copy, and large memory-mapped sets stay on disk.
        """
        if len({part.classes for part in parts}) != 1:
            raise ValueError("only sets with the same classes can be joined")
        if len(parts) == 1:
            return parts[0]
        return ImageSet(
            images=_joined([part.images for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
            ids=tuple(name for part in parts for name in part.ids),
            groups=tuple(name for part in parts for name in part.groups),
            domains=tuple(name for part in parts for name in part.domains),
            classes=parts[0].classes,
            subsets={domain: labels for part in parts for domain, labels in part.subsets.items()},
        )


def _joined(parts: Sequence[NDArray[np.uint8] | ComputedImages]) -> NDArray[np.uint8] | ComputedImages:
    stored = [part for part in parts if isinstance(part, np.ndarray)]
    mapped = any(isinstance(part, np.memmap) for part in stored)
    if len(stored) == len(parts) and not (mapped and sum(part.nbytes for part in stored) > COPIED_BYTES):
        return np.concatenate(stored)
    # By its name, so that what reads ids only never reaches torch.
    joined: ComputedImages = load_target("robusteval.data.computed:JoinedImages")(parts)
    return joined


class Dataset(ABC, Generic[P]):
    """Labelled images in one or more domains, split once and for all by example id.

    The canonical order of a split is that of `canonical_rank` of the group name, so that its first n examples are a
    fixed random subset, nested in every larger one, and show the same sources in every derived domain.
    """

    Params: ClassVar[type[Frozen]]
    """Parameters that a suite may set."""
    statistics: ClassVar[Statistics | None] = None
    """What models of this dataset normalise with; 0.5 for every number if None."""

    def __init__(self, params: P) -> None:
        self.params = params

    @property
    @abstractmethod
    def revision(self) -> str:
        """Version of the content; another content must give another revision."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""

    @property
    @abstractmethod
    def domains(self) -> tuple[str, ...]:
        """Domain names."""

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Per-channel mean that models of this dataset normalise with, on the [0, 1] scale."""
        return (0.5,) * self.image_shape[0] if self.statistics is None else self.statistics[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Per-channel standard deviation that models of this dataset normalise with."""
        return (0.5,) * self.image_shape[0] if self.statistics is None else self.statistics[1]

    def class_subset(self, domain: str) -> tuple[int, ...] | None:
        """Labels of a domain that has fewer classes by its making, ascending; None where every class counts.

        Examples of such a domain are classified among these alone, as ImageNet-A and ImageNet-R ask for.
        """
        return None

    @abstractmethod
    def ids(self, domain: str, split: Split) -> tuple[str, ...]:
        """Example ids of one domain and split in canonical order; cheap, no pixel is read."""

    @abstractmethod
    def load(self, domain: str, split: Split, n: int | None = None) -> ImageSet:
        """The first `n` examples (all by default) of one domain and split in canonical order."""
