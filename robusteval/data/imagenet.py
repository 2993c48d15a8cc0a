"""ImageNet with its natural shifts as domains, each a tree of class folders: V2, A, R and Sketch.

O. Russakovsky et al., IJCV 2015; V2: B. Recht et al., ICML 2019, arXiv 1902.10811; A: D. Hendrycks et al., CVPR 2021,
arXiv 1907.07174; R: D. Hendrycks et al., ICCV 2021, arXiv 2006.16241; Sketch: H. Wang et al., NeurIPS 2019,
arXiv 1905.13549.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from robusteval.data.catalogue import PUBLISHED, PublishedParams, absent
from robusteval.data.folder_index import ImageFile, list_images
from robusteval.data.imageset import IMAGENET, Dataset, ImageSet, Split
from robusteval.data.indexed import DecodingParams, IndexedImages
from robusteval.data.places import dataset_place
from robusteval.data.splits import hashed_split
from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import DataError, UnknownNameError, unknown_name
from robusteval.schema.types import Fraction01, Frozen, PositiveInt

DOMAINS = ("val", "v2", "a", "r", "sketch")
_FOLDERS = {
    "train": ("train",),
    "val": ("val", "validation"),
    "v2": ("v2", "imagenet-v2", "imagenetv2-matched-frequency-format-val"),
    "a": ("a", "imagenet-a"),
    "r": ("r", "imagenet-r"),
    "sketch": ("sketch", "imagenet-sketch"),
}
"""Names under which each part is found; archives unpack to the longer ones."""


class ImageNetParams(DecodingParams, PublishedParams):
    """Where ImageNet lies and how it is read."""

    size: PositiveInt | None = 224
    """Side in pixels of the resized images."""
    centre: Annotated[float, Field(gt=0.0, le=1.0, strict=True)] = 0.875
    """Share of the largest centred square that is kept: 224 out of 256 pixels."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """Filter of the resizing, antialiased."""
    validation: Fraction01 = 0.02
    """Share of the training images held out for validation, by a hash of the path."""
    domains: tuple[Literal["val", "v2", "a", "r", "sketch"], ...] | None = None
    """Domains to open; by default every one whose folder is there. All their files are read once for a digest."""
    train: bool = True
    """Whether the training images are opened too, if their folder is there; evaluation does without."""


class ImageNet(Dataset[ImageNetParams]):
    """ImageNet in up to five domains; `val` is the one to train on, the others have test images only.

    Classes are the folders of `val` and `train`, sorted. A domain with fewer classes is a subset of them, found from
    its folders, and its examples are classified among those alone. ImageNet-V2 names its folders by class number.
    """

    Params: ClassVar[type[Frozen]] = ImageNetParams
    name: ClassVar[str] = "imagenet"
    statistics = IMAGENET

    @cached_property
    def revision(self) -> str:
        """SHA-256 over the revisions of all parts."""
        return sha256_hex("\0".join(f"{name} {part.revision}" for name, part in self._parts.items()).encode())

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Identifiers of WordNet (`n01440764`), sorted."""
        named = [part for name, part in self._parts.items() if name in ("train", "val")]
        if not named:
            raise DataError(f"{self.root}: neither val/ nor train/ is there, whose folders number the classes; add one")
        classes = tuple(sorted({label for part in named for label in part.classes}))
        published = PUBLISHED[self.name].classes
        if self.params.complete and len(classes) != published:
            raise DataError(
                f"{self.root}: {len(classes)} classes instead of {published}; get the rest, or set complete: false to "
                f"use what is there"
            )
        return classes

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """Those of `val v2 a r sketch` that are there."""
        there = {"val" if name == "train" else name for name in self._parts}
        return tuple(name for name in DOMAINS if name in there)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, size, size), or the one size of all images."""
        return next(iter(self._parts.values())).image_shape

    def class_subset(self, domain: str) -> tuple[int, ...] | None:
        """Labels that a domain has, if it has not all."""
        self._check(domain)
        if domain == "val":
            return None
        labels = tuple(sorted(self._labels(domain).values()))
        return None if len(labels) == len(self.classes) else labels

    def ids(self, domain: str, split: Split) -> tuple[str, ...]:
        """`<part>/<class>/<file>` in canonical order."""
        self._check(domain)
        name, part_split = self._where(domain, split)
        part = self._parts.get(name)
        return () if part is None else tuple(f"{name}/{path}" for path in part.ids(name, part_split))

    def load(self, domain: str, split: Split, n: int | None = None) -> ImageSet:
        """The first `n` examples.

        Raises:
            UnknownNameError: no such domain.
            DataError: images are broken (all are named), or the cache cannot be written.
            CorruptRecordError: the cache is damaged.
        """
        ids = self.ids(domain, split)[:n]
        name, part_split = self._where(domain, split)
        if name not in self._parts:
            raise DataError(f"{self.root}: {self.name} has no {split} images of domain {domain!r}; add {name}/")
        found = self._parts[name].load(name, part_split, n)
        numbers = self._labels(name)
        order = np.array([numbers[label] for label in found.classes], dtype=np.int64)
        return ImageSet(found.images, order[found.labels], ids, ids, (domain,) * len(ids), self.classes)

    def _check(self, domain: str) -> None:
        if domain not in self.domains:
            raise UnknownNameError(unknown_name(f"domain of {self.root}", domain, self.domains))

    def _where(self, domain: str, split: Split) -> tuple[str, Split]:
        """The part that holds a split of a domain, and what that part calls it."""
        if domain == "val" and split != "test":
            return "train", split
        return domain, split

    def _labels(self, name: str) -> dict[str, int]:
        """Label by name of a class folder of one part.

        Raises:
            DataError: a folder stands for no class.
        """
        number = {label: index for index, label in enumerate(self.classes)}
        folders = self._parts[name].classes
        if name == "v2" and all(folder.isdecimal() for folder in folders):
            number = {str(index): index for index in range(len(self.classes))}
        strange = [folder for folder in folders if folder not in number]
        if strange:
            raise DataError(
                f"{self._parts[name].root}: {len(strange)} folders are no class of val/ or train/, such as "
                f"{strange[0]}; rename or remove them"
            )
        return {folder: number[folder] for folder in folders}

    @cached_property
    def root(self) -> Path:
        """Folder that everything lies in."""
        return dataset_place(self.name, self.params.path)

    @cached_property
    def _parts(self) -> dict[str, ClassFolders]:
        if not self.root.is_dir():
            raise absent(self.name, self.root)
        wanted = [*(("train",) if self.params.train else ()), *(self.params.domains or DOMAINS)]
        parts: dict[str, ClassFolders] = {}
        for name in wanted:
            place = next((at for folder in _FOLDERS[name] if (at := self.root / folder).is_dir()), None)
            if place is not None:
                parts[name] = ClassFolders(self._decoding, place.resolve(), name, self.params.validation)
                self._check_count(name, parts[name])
            elif name in (self.params.domains or ()):
                raise DataError(f"{self.root}: no folder for domain {name!r}; it may be called {_FOLDERS[name][-1]}")
        if not parts:
            raise DataError(f"{self.root}: none of {', '.join(_FOLDERS)} is there; each holds <wnid>/<file>")
        return parts

    @property
    def _decoding(self) -> DecodingParams:
        return DecodingParams(**{field: getattr(self.params, field) for field in DecodingParams.model_fields})

    def _check_count(self, name: str, part: ClassFolders) -> None:
        published = PUBLISHED[self.name].images.get(name, 0)
        if self.params.complete and published and part.count != published:
            raise DataError(
                f"{part.root}: {part.count} images instead of {published}; get it again, or set complete: false to use "
                f"what is there"
            )


class ClassFolders(IndexedImages[DecodingParams]):
    """One tree class/file.

    Args:
        params: how images are read.
        root: the tree.
        name: what it is called: `train` has a train and a validation split, anything else only a test split.
        validation: share of `train` held out.
    """

    def __init__(self, params: DecodingParams, root: Path, name: str, validation: float) -> None:
        super().__init__(params)
        self._at = root
        self._name = name
        self._validation = validation

    @property
    def domains(self) -> tuple[str, ...]:
        """The one name."""
        return (self._name,)

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self._files)

    @property
    def root(self) -> Path:
        """The tree."""
        return self._at

    @cached_property
    def _files(self) -> tuple[ImageFile, ...]:
        return list_images(self._at, depth=1)

    @cached_property
    def _positions(self) -> dict[tuple[str, Split], list[int]]:
        positions: dict[tuple[str, Split], list[int]] = {}
        for index, file in enumerate(self._files):
            split = hashed_split(file.path, self._validation, 0.0) if self._name == "train" else "test"
            positions.setdefault((self._name, split), []).append(index)
        return positions
