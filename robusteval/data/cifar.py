"""CIFAR-10 and CIFAR-100 (Krizhevsky, technical report, 2009) from the published files or from a folder of images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from robusteval.data.arrays import Labels, Pixels, check_length
from robusteval.data.catalogue import PublishedParams, absent
from robusteval.data.cifar_classes import CIFAR10_CLASSES, CIFAR100_CLASSES
from robusteval.data.cifar_files import SIDE, read_binary, read_pickled
from robusteval.data.image_folder import ImageFolder, ImageFolderParams
from robusteval.data.imageset import Dataset, ImageSet, Split, canonical_rank
from robusteval.data.places import dataset_place
from robusteval.data.splits import hashed_split
from robusteval.schema.errors import DataError, UnknownNameError, unknown_name
from robusteval.schema.types import Fraction01, Frozen

_LENGTHS = {"train": 50_000, "test": 10_000}
"""Images of each published part."""


@dataclass(frozen=True)
class Form:
    """One way in which a dataset is published: its folder, its files by part, and what reads them."""

    folder: str
    files: Mapping[str, tuple[str, ...]]
    read: Callable[[Path, tuple[str, ...]], tuple[Pixels, Labels]]

    def place(self, root: Path) -> Path | None:
        """The folder of the files, under `root` or `root` itself, if the first of them is there."""
        candidates = (root, root / self.folder)
        return next((place for place in candidates if (place / self.files["train"][0]).is_file()), None)


def _forms(classes: int) -> tuple[Form, Form]:
    """The binary and the Python version, which hold the same images in the same order."""
    if classes == 10:
        batches = tuple(f"data_batch_{number}" for number in range(1, 6))
        binary: dict[str, tuple[str, ...]] = {
            "train": tuple(f"{name}.bin" for name in batches),
            "test": ("test_batch.bin",),
        }
        pickled: dict[str, tuple[str, ...]] = {"train": batches, "test": ("test_batch",)}
        folders, label_bytes, label_key = ("cifar-10-batches-bin", "cifar-10-batches-py"), 1, "labels"
    else:
        binary = {"train": ("train.bin",), "test": ("test.bin",)}
        pickled = {"train": ("train",), "test": ("test",)}
        folders, label_bytes, label_key = ("cifar-100-binary", "cifar-100-python"), 2, "fine_labels"
    return (
        Form(folders[0], binary, lambda at, names: read_binary(at, names, label_bytes=label_bytes, classes=classes)),
        Form(folders[1], pickled, lambda at, names: read_pickled(at, names, label_key=label_key, classes=classes)),
    )


class CifarParams(PublishedParams):
    """Where CIFAR lies and how it is split."""

    validation: Fraction01 = 0.1
    """Share of the training images held out for validation, by a hash of the id."""
    cache: str | None = None
    """Folder of decoded images, for a folder of images; by default `~/.cache/robusteval`."""


class Cifar(Dataset[CifarParams]):
    """Images of 32 x 32 pixels in one domain with the published test split.

    Ids are `train/00000` to `train/49999` and `test/00000` to `test/09999` in the published order, whichever version
    is on disk; binary and Python version have the same revision. A folder of images (`train|test/<class>/<file>`) has
    relative paths as ids and, if its files are compressed with loss, other pixels and another revision.
    """

    Params: ClassVar[type[Frozen]] = CifarParams
    name: ClassVar[str]
    """Registered name, also that of the one domain."""
    class_names: ClassVar[tuple[str, ...]]

    @cached_property
    def revision(self) -> str:
        """SHA-256 over labels and pixels, or that of the folder of images."""
        if self._folder is not None:
            return self._folder.revision
        digest = hashlib.sha256(self.name.encode())
        for pixels, labels in (self._train, self._test):
            digest.update(labels.tobytes())
            digest.update(np.ascontiguousarray(pixels).data)
        return digest.hexdigest()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the published order."""
        return self.class_names

    @property
    def domains(self) -> tuple[str, ...]:
        """One domain."""
        return (self.name,)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, 32, 32)."""
        return (3, SIDE, SIDE)

    def ids(self, domain: str, split: Split) -> tuple[str, ...]:
        """Example ids in canonical order."""
        self._check(domain)
        if self._folder is not None:
            return self._folder.ids(self._folder.domains[0], split)
        part = "test" if split == "test" else "train"
        return tuple(f"{part}/{index:05d}" for index in self._indices[split])

    def load(self, domain: str, split: Split, n: int | None = None) -> ImageSet:
        """The first `n` examples.

        Raises:
            UnknownNameError: no such domain.
            DataError: a file is missing, damaged or of the wrong length.
        """
        self._check(domain)
        if self._folder is not None:
            found = self._folder.load(self._folder.domains[0], split, n)
            ids, images, labels = found.ids, found.images, found.labels
        else:
            ids = self.ids(domain, split)[:n]
            where = np.array(self._indices[split][: len(ids)], dtype=np.int64)
            pixels, targets = self._test if split == "test" else self._train
            images, labels = pixels[where], targets[where]
        return ImageSet(images, labels, ids, ids, (domain,) * len(ids), self.classes)

    def _check(self, domain: str) -> None:
        if domain != self.name:
            raise UnknownNameError(unknown_name(f"domain of {self.name}", domain, self.domains))

    @cached_property
    def root(self) -> Path:
        """Folder that everything lies in."""
        return dataset_place(self.name, self.params.path)

    @cached_property
    def _form(self) -> tuple[Form, Path] | None:
        for form in _forms(len(self.class_names)):
            place = form.place(self.root)
            if place is not None:
                return form, place
        return None

    @cached_property
    def _folder(self) -> ImageFolder | None:
        """The folder of images, if that is the form."""
        if self._form is not None:
            return None
        root = next((at for at in (self.root, self.root / self.name) if (at / "train").is_dir()), None)
        if root is None:
            raise absent(self.name, self.root)
        params = ImageFolderParams(
            path=str(root), layout="split", validation=self.params.validation, cache=self.params.cache
        )
        folder = ImageFolder(params)
        if folder.classes != tuple(sorted(self.class_names)) or folder.image_shape != self.image_shape:
            raise DataError(
                f"{root}: not {self.name}: {len(folder.classes)} class folders of images {folder.image_shape}; it "
                f"needs the {len(self.class_names)} published names and 32 x 32 pixels"
            )
        return folder

    @cached_property
    def _train(self) -> tuple[Pixels, Labels]:
        return self._read("train")

    @cached_property
    def _test(self) -> tuple[Pixels, Labels]:
        return self._read("test")

    def _read(self, part: str) -> tuple[Pixels, Labels]:
        assert self._form is not None
        form, place = self._form
        pixels, labels = form.read(place, form.files[part])
        if self.params.complete:
            check_length(place / form.files[part][0], len(labels), _LENGTHS[part])
        return pixels, labels

    @cached_property
    def _indices(self) -> dict[Split, list[int]]:
        found: dict[Split, list[int]] = {"train": [], "validation": [], "test": []}
        for part, labels in (("train", self._train[1]), ("test", self._test[1])):
            names = [f"{part}/{index:05d}" for index in range(len(labels))]
            for index in sorted(range(len(names)), key=lambda position: canonical_rank(names[position])):
                held_out = hashed_split(names[index], self.params.validation, 0.0)
                found["test" if part == "test" else held_out].append(index)
        return found


class Cifar10(Cifar):
    """CIFAR-10: 60,000 images of 10 classes."""

    name = "cifar10"
    class_names = CIFAR10_CLASSES
    statistics = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


class Cifar100(Cifar):
    """CIFAR-100: 60,000 images of 100 classes, labelled with the fine ones."""

    name = "cifar100"
    class_names = CIFAR100_CLASSES
    statistics = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
