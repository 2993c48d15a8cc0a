"""Datasets whose images are files under one root: decoded once, digests of contents as revision, splits by position."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
from PIL import Image
from pydantic import Field

from robusteval.data.folder_index import ImageFile, content_digests
from robusteval.data.imageset import Dataset, ImageSet, Split
from robusteval.data.pixel_cache import Decoder, PixelCache, Source, picture_shape
from robusteval.data.places import cache_folder
from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import UnknownNameError, unknown_name
from robusteval.schema.types import Frozen, PositiveInt

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_DECODING = 1
"""Raised when the same file decodes to other pixels."""


class DecodingParams(Frozen):
    """How image files become pixels, and where those are kept."""

    size: PositiveInt | None = None
    """Side in pixels of the resized images; without it, all images must have one size."""
    fit: Literal["crop", "stretch"] = "crop"
    """How a picture becomes a square: `crop` resizes the shorter side and keeps the centre; `stretch` resizes both
    sides, whatever the proportions, as DomainBed does."""
    centre: Annotated[float, Field(gt=0.0, le=1.0, strict=True)] = 1.0
    """Share of the square that `crop` keeps, around its centre: 0.875 is the usual 224 out of 256 pixels."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Filter of the resizing, antialiased."""
    cache: str | None = Field(default=None, min_length=1)
    """Folder of the decoded images; by default `~/.cache/robusteval`."""


T = TypeVar("T", bound=DecodingParams)


class IndexedImages(Dataset[T]):
    """Image files under one root, in an order in which they are also kept decoded.

    A subclass says which files there are, in the canonical order within each domain, and which split each belongs to.
    An id is the path relative to the root, and every image is its own group.
    """

    @property
    @abstractmethod
    def root(self) -> Path:
        """Folder that all paths are relative to."""

    @property
    @abstractmethod
    def _files(self) -> tuple[ImageFile, ...]:
        """Every image of every domain."""

    @property
    @abstractmethod
    def _positions(self) -> Mapping[tuple[str, Split], Sequence[int]]:
        """Positions in `_files` of each split of each domain, in canonical order."""

    @property
    def revision(self) -> str:
        """SHA-256 over relative paths, file contents and the way of decoding."""
        return self._content[0]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of all files together, sorted."""
        return tuple(sorted({file.label for file in self._files}))

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, size, size), or the one size of all images."""
        if self.params.size is not None:
            return (3, self.params.size, self.params.size)
        return picture_shape(self.root, [file.path for file in self._files])

    def ids(self, domain: str, split: Split) -> tuple[str, ...]:
        """Relative paths in canonical order."""
        return tuple(self._files[index].path for index in self._of(domain, split))

    def load(self, domain: str, split: Split, n: int | None = None) -> ImageSet:
        """The first `n` examples; where they lie side by side, their pixels are a view of the memory-mapped cache.

        Raises:
            UnknownNameError: no such domain.
            DataError: images are broken (all are named), or the cache cannot be written.
            CorruptRecordError: the cache is damaged.
        """
        positions = self._of(domain, split)[:n]
        files = [self._files[index] for index in positions]
        ids = tuple(file.path for file in files)
        number = {name: index for index, name in enumerate(self.classes)}
        return ImageSet(
            images=self._pixels.at(positions),
            labels=np.array([number[file.label] for file in files], dtype=np.int64),
            ids=ids,
            groups=ids,
            domains=(domain,) * len(ids),
            classes=self.classes,
        )

    def check_images(self) -> None:
        """Decode what was never decoded, and check the rest against its checksums.

        Raises:
            DataError: images are broken (all are named), or the cache cannot be written.
            CorruptRecordError: the cache is damaged.
        """
        self._pixels.at(range(len(self._files)))

    def _of(self, domain: str, split: Split) -> Sequence[int]:
        if domain not in self.domains:
            raise UnknownNameError(unknown_name(f"domain of {self.root}", domain, self.domains))
        return self._positions.get((domain, split), ())

    @cached_property
    def _cache(self) -> Path:
        return cache_folder(self.params.cache)

    @cached_property
    def _content(self) -> tuple[str, tuple[Source, ...]]:
        manifest = self._cache / "manifests" / f"{sha256_hex(str(self.root).encode())[:32]}.json"
        digests = content_digests(self.root, self._files, manifest)
        sources = tuple(Source(file.path, digests[file.path]) for file in self._files)
        lines = [" ".join(self._decoding)]
        lines += [f"{source.digest} {source.path}" for source in sources]
        return sha256_hex("\0".join(lines).encode()), sources

    @property
    def _decoding(self) -> list[str]:
        """Everything that pixels depend on besides the files, in words that stay the same where nothing is changed."""
        decoder = self._decoder
        words = [str(_DECODING), str(self.params.size), self.params.interpolation]
        if decoder.stretch:
            words.append("stretch")
        return [*words, f"centre {decoder.centre}"] if decoder.centre != 1.0 else words

    @property
    def _decoder(self) -> Decoder:
        params = self.params
        if params.size is None:
            return Decoder(None, RESAMPLING[params.interpolation])
        stretch = params.fit == "stretch"
        return Decoder(params.size, RESAMPLING[params.interpolation], stretch, 1.0 if stretch else params.centre)

    @cached_property
    def _pixels(self) -> PixelCache:
        digest, sources = self._content
        path = self._cache / "pixels" / f"{digest}.npy"
        return PixelCache(path, self.root, sources, self.image_shape, self._decoder)
