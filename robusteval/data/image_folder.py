"""Any folder tree of images as a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from robusteval.data.folder_index import ImageFile, list_images
from robusteval.data.imageset import Split
from robusteval.data.indexed import DecodingParams, IndexedImages
from robusteval.data.places import at_home
from robusteval.data.splits import (
    DomainSplitParams,
    assign_splits,
    domain_order,
    hashed_split,
    lone_classes,
    refuse_split_options,
)
from robusteval.schema.errors import DataError
from robusteval.schema.types import Frozen

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}


class ImageFolderParams(DomainSplitParams, DecodingParams):
    """Where the images are, how they are read and how they are split."""

    path: str = Field(min_length=1)
    """Root of the tree; `~` is the home folder."""
    layout: Literal["auto", "domain", "split"] = "auto"
    """`domain`: domain/class/file; `split`: train|val|validation|test/class/file, one domain named after the root;
    `auto`: `split` if all first folders have such names, else `domain`."""
    lone_classes: Literal["refuse", "keep"] = "refuse"
    """What to do with a class that stands in one of several domains only, which is mostly a misspelt folder."""


class ImageFolder(IndexedImages[ImageFolderParams]):
    """A tree `domain/class/file` or `split/class/file`.

    Ids are relative paths, and every image is its own group. With layout `domain`, an image's split is read off the
    hash of its path (by default 60 percent train, 20 validation, 20 test of each domain), so it never changes when
    other images come or go; folders may nest below the class. With layout `split` and no validation folder, the same
    hash holds a share of `train` out for validation: something has to select, and it must not be the test split.
    """

    Params: ClassVar[type[Frozen]] = ImageFolderParams

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """Names of the first folders, sorted; the name of the root with layout `split`."""
        return (self.root.name,) if self._by_split else domain_order(self._files)

    @cached_property
    def root(self) -> Path:
        """Folder that everything lies in."""
        return at_home(self.params.path).resolve()

    @cached_property
    def _files(self) -> tuple[ImageFile, ...]:
        files = list_images(self.root)
        tops = {file.top for file in files}
        if self.params.layout == "split" and not tops <= set(SPLIT_FOLDERS):
            strange = ", ".join(sorted(tops - set(SPLIT_FOLDERS)))
            raise DataError(f"{self.root}: not a split: {strange}; with layout 'split' use train, validation, test")
        if not self._are_splits(tops) and self.params.lone_classes == "refuse":
            self._refuse_lone_classes(files)
        return files

    def _are_splits(self, tops: set[str]) -> bool:
        return self.params.layout != "domain" and tops <= set(SPLIT_FOLDERS)

    def _refuse_lone_classes(self, files: Sequence[ImageFile]) -> None:
        lone = [f"{top}/{label}" for label, top in lone_classes(files)]
        if lone:
            shown = ", ".join(lone[:5]) + (f" and {len(lone) - 5} more" if len(lone) > 5 else "")
            raise DataError(
                f"{self.root}: a class that stands in one domain only: {shown}; rename or remove the folder, or set "
                f"lone_classes: keep"
            )

    @cached_property
    def _by_split(self) -> bool:
        tops = {file.top for file in self._files}
        if not self._are_splits(tops):
            return False
        if {"val", "validation"} <= tops:
            raise DataError(f"{self.root}: both 'val' and 'validation' are there; keep one of them")
        unlearnt = {file.label for file in self._files} - {file.label for file in self._files if file.top == "train"}
        if "train" in tops and unlearnt:
            raise DataError(f"{self.root}: classes without a training image: {', '.join(sorted(unlearnt))}")
        return True

    @cached_property
    def _positions(self) -> dict[tuple[str, Split], list[int]]:
        if not self._by_split:
            return assign_splits(self._files, self.domains, self.params)
        refuse_split_options(self.params, f"{self.root}: a tree split/class/file")
        has_validation = any(SPLIT_FOLDERS[file.top] == "validation" for file in self._files)
        share = 0.0 if has_validation else self.params.validation
        positions: dict[tuple[str, Split], list[int]] = {}
        for index, file in enumerate(self._files):
            split = SPLIT_FOLDERS[file.top]
            if split == "train":
                split = hashed_split(file.path, share, 0.0)
            positions.setdefault((self.domains[0], split), []).append(index)
        return positions
