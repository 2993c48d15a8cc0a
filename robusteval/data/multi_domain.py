"""The image datasets of domain generalization, in the folders in which DomainBed keeps them: domain/class/file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from robusteval.data.catalogue import PUBLISHED, PublishedParams
from robusteval.data.folder_index import ImageFile, list_images
from robusteval.data.imageset import IMAGENET, Split
from robusteval.data.indexed import DecodingParams, IndexedImages
from robusteval.data.places import dataset_place
from robusteval.data.splits import DomainSplitParams, assign_splits
from robusteval.schema.errors import DataError
from robusteval.schema.types import Frozen


class MultiDomainParams(DomainSplitParams, DecodingParams, PublishedParams):
    """Where a published tree of domains is, how it is read and how it is split."""


class MultiDomain(IndexedImages[MultiDomainParams]):
    """A published tree `domain/class/file` whose domains, classes and counts are known and checked."""

    Params: ClassVar[type[Frozen]] = MultiDomainParams
    name: ClassVar[str]
    """Registered name."""
    statistics = IMAGENET

    @property
    def domains(self) -> tuple[str, ...]:
        """The published domains, in DomainBed's order."""
        return tuple(PUBLISHED[self.name].images)

    @cached_property
    def root(self) -> Path:
        """Folder that everything lies in."""
        return dataset_place(self.name, self.params.path)

    @cached_property
    def _files(self) -> tuple[ImageFile, ...]:
        self._check_domains()
        files = list_images(self.root, only=self.domains)
        if self.params.complete:
            problems = [*self._wrong_counts(files), *self._wrong_classes(files)]
            if problems:
                raise DataError(
                    f"{self.root}: not the published {self.name}: {'; '.join(problems)}; get it again "
                    f"({PUBLISHED[self.name].homepage}), or set complete: false to use what is there"
                )
        return files

    def _check_domains(self) -> None:
        if not self.root.is_dir():
            raise DataError(
                f"{self.root}: {self.name} is not there; link it with `robusteval data link {self.name} FOLDER` or "
                f"set 'path' to a tree domain/class/file with the domains {', '.join(self.domains)}"
            )
        missing = [name for name in self.domains if not (self.root / name).is_dir()]
        if missing:
            there = sorted(path.name for path in self.root.iterdir() if path.is_dir() and path.name[:1] != ".")
            raise DataError(
                f"{self.root}: {self.name} has no folder for its domain {' and '.join(map(repr, missing))}; there is "
                f"{', '.join(there[:8]) or 'nothing'}; rename the folder or get the rest"
            )

    def _wrong_counts(self, files: Sequence[ImageFile]) -> list[str]:
        problems = []
        for domain, published in PUBLISHED[self.name].images.items():
            found = sum(file.top == domain for file in files)
            if published and found != published:
                problems.append(f"{domain} has {found} images instead of {published}")
        return problems

    def _wrong_classes(self, files: Sequence[ImageFile]) -> list[str]:
        expected = PUBLISHED[self.name].classes
        classes = {file.label for file in files}
        if len(classes) != expected:
            return [f"{len(classes)} classes instead of {expected}"]
        return []

    @cached_property
    def _positions(self) -> Mapping[tuple[str, Split], Sequence[int]]:
        return assign_splits(self._files, self.domains, self.params)


class Pacs(MultiDomain):
    """PACS: 9,991 images of 7 classes as art paintings, cartoons, photos and sketches."""

    name = "pacs"


class Vlcs(MultiDomain):
    """VLCS: 10,729 photos of 5 classes from Caltech101, LabelMe, SUN09 and VOC2007."""

    name = "vlcs"


class OfficeHome(MultiDomain):
    """OfficeHome: 15,588 images of 65 classes as art, clip art, product pictures and photos."""

    name = "office-home"


class TerraIncognita(MultiDomain):
    """TerraIncognita: camera traps at four locations, 10 classes of animals and empty pictures."""

    name = "terra-incognita"


class DomainNet(MultiDomain):
    """DomainNet: 586,575 images of 345 classes in six styles."""

    name = "domainnet"
