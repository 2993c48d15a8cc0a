"""Any folder tree of images as a dataset."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from robusteval.data.folder_index import ImageFile, content_digests, list_images
from robusteval.data.imageset import Dataset, ImageSet, Split, canonical_rank
from robusteval.data.pixel_cache import Decoder, PixelCache, Source, picture_shape
from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import DataError, UnknownNameError, unknown_name
from robusteval.schema.types import Fraction01, Frozen, PositiveInt

_SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_DECODING = 1
"""Raised when the same file decodes to other pixels."""


class ImageFolderParams(Frozen):
    """Where the images are and how they are read."""

    path: str = Field(min_length=1)
    """Root of the tree; `~` is the home folder."""
    size: PositiveInt | None = None
    """Side in pixels: the shorter side of each image is resized to it and the centre is kept; without it, all images
    must have one size."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Filter of the resizing, antialiased."""
    layout: Literal["auto", "domain", "split"] = "auto"
    """`domain`: domain/class/file; `split`: train|val|validation|test/class/file, one domain named after the root;
    `auto`: `split` if all first folders have such names, else `domain`."""
    validation: Fraction01 = 0.2
    """Share held out for validation, by a hash of the relative path: of each domain, or, with layout `split` and no
    validation folder, of `train`."""
    test: Fraction01 = 0.2
    """Share of each domain held out for test, by the same hash (layout `domain`)."""
    cache: str | None = None
    """Folder of the decoded images; by default `~/.cache/robusteval`."""

    @model_validator(mode="after")
    def _leaves_training_data(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together must be less than 1, so that training images are left")
        return self


class ImageFolder(Dataset[ImageFolderParams]):
    """A tree `domain/class/file` or `split/class/file`.

    Ids are relative paths, and every image is its own group. With layout `domain`, an image's split is read off the
    hash of its path (by default 60 percent train, 20 validation, 20 test of each domain), so it never changes when
    other images come or go; folders may nest below the class. With layout `split` and no validation folder, the same
    hash holds a share of `train` out for validation: something has to select, and it must not be the test split.
    """

    Params: ClassVar[type[Frozen]] = ImageFolderParams

    @property
    def revision(self) -> str:
        """SHA-256 over relative paths, file contents and the way of decoding."""
        return self._content[0]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the class folders of all domains or splits together, sorted."""
        return tuple(sorted({file.label for file in self._files}))

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """Names of the first folders, sorted; the name of the root with layout `split`."""
        if self._by_split:
            return (self._root.name,)
        return tuple(dict.fromkeys(file.top for file in self._files))

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, size, size), or the one size of all images."""
        if self.params.size is not None:
            return (3, self.params.size, self.params.size)
        return picture_shape(self._root, [file.path for file in self._files])

    def ids(self, domain: str, split: Split) -> tuple[str, ...]:
        """Relative paths in canonical order."""
        first, last = self._range(domain, split)
        return tuple(file.path for file in self._files[first:last])

    def load(self, domain: str, split: Split, n: int | None = None) -> ImageSet:
        """The first `n` examples; their pixels are a view of the memory-mapped cache.

        Raises:
            UnknownNameError: no such domain.
            DataError: images are broken (all are named), or the cache cannot be written.
            CorruptRecordError: the cache is damaged.
        """
        first, last = self._range(domain, split)
        last = last if n is None else min(last, first + n)
        files = self._files[first:last]
        ids = tuple(file.path for file in files)
        number = {name: index for index, name in enumerate(self.classes)}
        return ImageSet(
            images=self._pixels.rows(first, last),
            labels=np.array([number[file.label] for file in files], dtype=np.int64),
            ids=ids,
            groups=ids,
            domains=(domain,) * len(ids),
            classes=self.classes,
        )

    @cached_property
    def _root(self) -> Path:
        return Path(self.params.path).expanduser().resolve()

    @cached_property
    def _cache(self) -> Path:
        return Path(self.params.cache).expanduser() if self.params.cache else Path.home() / ".cache" / "robusteval"

    @cached_property
    def _files(self) -> tuple[ImageFile, ...]:
        files = list_images(self._root)
        tops = {file.top for file in files}
        if self.params.layout == "split" and not tops <= set(_SPLIT_FOLDERS):
            strange = ", ".join(sorted(tops - set(_SPLIT_FOLDERS)))
            raise DataError(f"{self._root}: not a split: {strange}; with layout 'split' use train, validation, test")
        return files

    @cached_property
    def _by_split(self) -> bool:
        tops = {file.top for file in self._files}
        if self.params.layout == "domain" or not tops <= set(_SPLIT_FOLDERS):
            return False
        if {"val", "validation"} <= tops:
            raise DataError(f"{self._root}: both 'val' and 'validation' are there; keep one of them")
        unlearnt = {file.label for file in self._files} - {file.label for file in self._files if file.top == "train"}
        if "train" in tops and unlearnt:
            raise DataError(f"{self._root}: classes without a training image: {', '.join(sorted(unlearnt))}")
        return True

    @cached_property
    def _ranges(self) -> dict[tuple[str, Split], tuple[int, int]]:
        """Where each split of each domain lies in `_files`; contiguous, because the hash that orders also splits."""
        ranges: dict[tuple[str, Split], tuple[int, int]] = {}
        for index, file in enumerate(self._files):
            key = (self.domains[0], self._named_split(file)) if self._by_split else (file.top, self._split(file))
            first, _ = ranges.get(key, (index, index))
            ranges[key] = (first, index + 1)
        return ranges

    def _named_split(self, file: ImageFile) -> Split:
        named = _SPLIT_FOLDERS[file.top]
        if named != "train" or self._has_validation:
            return named
        return "validation" if canonical_rank(file.path) / 2**63 >= 1 - self.params.validation else "train"

    @cached_property
    def _has_validation(self) -> bool:
        return any(_SPLIT_FOLDERS.get(file.top) == "validation" for file in self._files)

    def _split(self, file: ImageFile) -> Split:
        position = canonical_rank(file.path) / 2**63
        if position >= 1 - self.params.test:
            return "test"
        return "validation" if position >= 1 - self.params.test - self.params.validation else "train"

    def _range(self, domain: str, split: Split) -> tuple[int, int]:
        if domain not in self.domains:
            raise UnknownNameError(unknown_name(f"domain of {self._root}", domain, self.domains))
        return self._ranges.get((domain, split), (0, 0))

    @cached_property
    def _content(self) -> tuple[str, tuple[Source, ...]]:
        manifest = self._cache / "manifests" / f"{sha256_hex(str(self._root).encode())[:32]}.json"
        digests = content_digests(self._root, self._files, manifest)
        sources = tuple(Source(file.path, digests[file.path]) for file in self._files)
        lines = [f"{_DECODING} {self.params.size} {self.params.interpolation}"]
        lines += [f"{source.digest} {source.path}" for source in sources]
        return sha256_hex("\0".join(lines).encode()), sources

    @cached_property
    def _pixels(self) -> PixelCache:
        revision, sources = self._content
        decoder = Decoder(self.params.size, _RESAMPLING[self.params.interpolation])
        return PixelCache(self._cache / "pixels" / f"{revision}.npy", self._root, sources, self.image_shape, decoder)
