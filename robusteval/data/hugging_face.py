"""Image datasets of the Hugging Face hub, through their `datasets` library, which is an extra."""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from pydantic import Field

from robusteval.data.folder_index import ImageFile
from robusteval.data.imageset import Split, canonical_rank
from robusteval.data.indexed import DecodingParams, IndexedImages
from robusteval.data.pixel_cache import PixelCache, Source
from robusteval.data.splits import DomainSplitParams, assign_splits, domain_order, hashed_split, refuse_split_options
from robusteval.schema.digest import json_digest, sha256_hex
from robusteval.schema.errors import DataError, unknown_name
from robusteval.schema.types import Frozen

_NAMES: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


class HuggingFaceParams(DomainSplitParams, DecodingParams):
    """Which dataset, which of its columns, and how it is split where it does not say."""

    repo: str = Field(min_length=1)
    """Name on the hub, such as `flwrlabs/pacs`, or a folder that `datasets.load_dataset` reads."""
    config: str | None = None
    """Configuration, where the dataset has several."""
    commit: str | None = None
    """Commit or tag; without it, what the hub holds now."""
    image: str = "image"
    """Column of the images."""
    label: str = "label"
    """Column of the labels."""
    domain: str | None = None
    """Column of the domains; without it there is one domain called `data`."""


class HuggingFace(IndexedImages[HuggingFaceParams]):
    """A dataset of the Hugging Face hub.

    Its splits `train`, `validation` and `test` are followed; without a validation split, a share of `train` is held out
    by a hash of the id; with a single split, domains are split as those of a folder tree. An id is `<split>/<row>`.
    """

    Params: ClassVar[type[Frozen]] = HuggingFaceParams

    @property
    def root(self) -> Path:
        """No folder: the name, for messages."""
        return Path(self.params.repo)

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """Values of the column of domains, sorted."""
        return domain_order(self._files)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, in label order where the dataset has one, else sorted."""
        names = self._names(self.params.label)
        return super().classes if names is None else tuple(names)

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, size, size), or that of the first image."""
        if self.params.size is not None:
            return (3, self.params.size, self.params.size)
        with Image.open(io.BytesIO(self._bytes(self._files[0].path))) as image:
            return (3, image.height, image.width)

    @cached_property
    def _tables(self) -> Mapping[str, Any]:
        """Tables by their own split names, with images as encoded bytes."""
        library = _library()
        try:
            loaded = library.load_dataset(self.params.repo, name=self.params.config, revision=self.params.commit)
            tables = loaded if isinstance(loaded, dict) else {"train": loaded}
            columns = next(iter(tables.values())).column_names
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(
                f"dataset {self.params.repo!r} cannot be loaded by the library datasets: {reason}; is the name right, "
                f"and the network reachable?"
            ) from error
        wanted = [self.params.image, self.params.label, *([self.params.domain] if self.params.domain else [])]
        for name in wanted:
            if name not in columns:
                raise DataError(f"dataset {self.params.repo!r}: {unknown_name('column', name, columns)}")
        undecoded = library.Image(decode=False)
        return {name: table.cast_column(self.params.image, undecoded) for name, table in tables.items()}

    def _names(self, column: str) -> list[str] | None:
        """Names of the values of a column of class labels."""
        return getattr(next(iter(self._tables.values())).features[column], "names", None)

    def _values(self, table: Any, column: str) -> list[str]:
        names = self._names(column)
        return [str(value) if names is None else names[value] for value in table[column]]

    @cached_property
    def _files(self) -> tuple[ImageFile, ...]:
        files = []
        for split, table in self._tables.items():
            labels = self._values(table, self.params.label)
            domains = self._values(table, self.params.domain) if self.params.domain else ["data"] * len(labels)
            for row, (label, domain) in enumerate(zip(labels, domains, strict=True)):
                files.append(ImageFile(f"{split}/{row:07d}", 0, 0, domain, label))
        if not files:
            raise DataError(f"dataset {self.params.repo!r} has no row; give another configuration")
        return tuple(sorted(files, key=lambda file: (file.top, canonical_rank(file.path))))

    @cached_property
    def _positions(self) -> Mapping[tuple[str, Split], Sequence[int]]:
        if len(self._tables) == 1:
            return assign_splits(self._files, self.domains, self.params)
        refuse_split_options(self.params, f"dataset {self.params.repo!r}")
        strange = [name for name in self._tables if name not in _NAMES]
        if strange:
            raise DataError(f"dataset {self.params.repo!r}: {unknown_name('split', strange[0], _NAMES)}")
        share = 0.0 if any(_NAMES[name] == "validation" for name in self._tables) else self.params.validation
        positions: dict[tuple[str, Split], list[int]] = {}
        for index, file in enumerate(self._files):
            split = _NAMES[file.path.partition("/")[0]]
            if split == "train":
                split = hashed_split(file.path, share, 0.0)
            positions.setdefault((file.top, split), []).append(index)
        return positions

    def _bytes(self, path: str) -> bytes:
        """Encoded image of an id."""
        split, _, row = path.partition("/")
        cell = self._tables[split][int(row)][self.params.image]
        if not isinstance(cell, dict) or not (cell.get("bytes") or cell.get("path")):
            raise ValueError("holds no image")
        return cell["bytes"] or Path(cell["path"]).read_bytes()

    @cached_property
    def _content(self) -> tuple[str, tuple[Source, ...]]:
        sources = tuple(Source(file.path, sha256_hex(self._bytes(file.path))) for file in self._files)
        rows = [
            [file.path, file.top, file.label, source.digest] for file, source in zip(self._files, sources, strict=True)
        ]
        return json_digest([*self._decoding, self.classes, rows]), sources

    @cached_property
    def _pixels(self) -> PixelCache:
        digest, sources = self._content
        path = self._cache / "pixels" / f"{digest}.npy"
        return PixelCache(path, self.root, sources, self.image_shape, self._decoder, read=self._bytes)


def _library() -> Any:
    """The `datasets` library.

    Raises:
        DataError: it is not installed.
    """
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"datasets of Hugging Face need the library datasets ({error}); run: pip install 'robusteval[huggingface]'"
        ) from None
