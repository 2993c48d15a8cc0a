"""ImageNet-C as it is published: JPEG files of 224 pixels in `<corruption>/<severity>/<class>/<file>`.

D. Hendrycks and T. Dietterich, ICLR 2019, arXiv 1903.12261. The files are a second, hidden corruption: they were cut to
224 pixels before and compressed with quality 85 afterwards, so they are read as they are.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from robusteval.data.catalogue import PublishedParams, absent
from robusteval.data.imagenet import ClassFolders
from robusteval.data.imageset import IMAGENET, Dataset, ImageSet, Split
from robusteval.data.indexed import DecodingParams
from robusteval.data.places import dataset_place
from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import DataError, UnknownNameError, unknown_name
from robusteval.schema.types import Frozen

SEVERITIES = (1, 2, 3, 4, 5)
_GROUPS = ("blur", "digital", "extra", "noise", "weather")
"""Folders that some copies keep the corruptions in; the archives are called so."""
_IMAGES = 50_000


class ImageNetCParams(DecodingParams, PublishedParams):
    """Where ImageNet-C lies, and which of it is opened; everything that is opened is read once for a digest."""

    corruptions: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Corruptions to open, such as `fog`; by default every one whose folder is there."""
    severities: Annotated[tuple[Annotated[int, Field(ge=1, le=5, strict=True)], ...], Field(min_length=1)] = SEVERITIES
    """Severities to open."""


class ImageNetC(Dataset[ImageNetCParams]):
    """Corrupted validation images of ImageNet, a domain for each corruption and severity, such as `fog-3`.

    A group is the image that was corrupted, under the id that it has in `imagenet`; all domains show the same sources
    in the same order.
    """

    Params: ClassVar[type[Frozen]] = ImageNetCParams
    name: ClassVar[str] = "imagenet-c"
    statistics = IMAGENET

    @cached_property
    def revision(self) -> str:
        """SHA-256 over the revisions of all parts."""
        return sha256_hex("\0".join(f"{name} {part.revision}" for name, part in self._parts.items()).encode())

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Identifiers of WordNet (`n01440764`), sorted."""
        first, *others = self._parts.items()
        for name, part in others:
            if part.classes != first[1].classes:
                strange = sorted(set(part.classes) ^ set(first[1].classes))
                raise DataError(
                    f"{part.root}: {name} and {first[0]} differ in {len(strange)} classes, such as {strange[0]}; get "
                    f"the rest of the folder again"
                )
        return first[1].classes

    @property
    def domains(self) -> tuple[str, ...]:
        """`<corruption>-<severity>` of everything that is opened."""
        return tuple(self._parts)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, size, size), or the one size of all images."""
        return next(iter(self._parts.values())).image_shape

    def ids(self, domain: str, split: Split) -> tuple[str, ...]:
        """`<corruption>-<severity>/<class>/<file>` in canonical order; there are test images only."""
        part = self._part(domain)
        return tuple(f"{domain}/{path}" for path in part.ids(domain, split)) if split == "test" else ()

    def load(self, domain: str, split: Split, n: int | None = None) -> ImageSet:
        """The first `n` examples.

        Raises:
            UnknownNameError: no such domain.
            DataError: there is no such split, images are broken (all are named), or the cache cannot be written.
            CorruptRecordError: the cache is damaged.
        """
        part = self._part(domain)
        if split != "test":
            raise DataError(f"{self.root}: {self.name} has no {split} images; it is measured on, not trained on")
        found = part.load(domain, split, n)
        return ImageSet(
            images=found.images,
            labels=found.labels,
            ids=tuple(f"{domain}/{path}" for path in found.ids),
            groups=tuple(f"val/{path}" for path in found.ids),
            domains=(domain,) * len(found),
            classes=self.classes,
        )

    def _part(self, domain: str) -> ClassFolders:
        if domain not in self._parts:
            raise UnknownNameError(unknown_name(f"domain of {self.root}", domain, self.domains))
        return self._parts[domain]

    @cached_property
    def root(self) -> Path:
        """Folder that everything lies in."""
        return dataset_place(self.name, self.params.path)

    @cached_property
    def _folders(self) -> dict[str, Path]:
        """Corruption to its folder."""
        if not self.root.is_dir():
            raise absent(self.name, self.root)
        places = [self.root, *(self.root / group for group in _GROUPS if (self.root / group).is_dir())]
        found = {path.name: path for place in places for path in sorted(place.iterdir()) if (path / "1").is_dir()}
        missing = [name for name in self.params.corruptions or () if name not in found]
        if missing or not found:
            there = ", ".join(found) or "none"
            wanted = missing[0] if missing else "any corruption"
            raise DataError(f"{self.root}: no folder {wanted}/<severity>/<class>/; there is {there}; get it again")
        return {name: found[name] for name in sorted(self.params.corruptions or found)}

    @cached_property
    def _parts(self) -> dict[str, ClassFolders]:
        parts = {}
        decoding = DecodingParams(**{field: getattr(self.params, field) for field in DecodingParams.model_fields})
        for corruption, folder in self._folders.items():
            for severity in self.params.severities:
                name = f"{corruption}-{severity}"
                part = ClassFolders(decoding, (folder / str(severity)).resolve(), name, 0.0)
                if self.params.complete and part.count != _IMAGES:
                    raise DataError(
                        f"{part.root}: {part.count} images instead of {_IMAGES}; get it again, or set complete: false "
                        f"to use what is there"
                    )
                parts[name] = part
        return parts
