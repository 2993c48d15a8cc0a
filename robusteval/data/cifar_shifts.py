"""Shifted test sets of CIFAR as they are published: CIFAR-10-C, CIFAR-100-C and CIFAR-10.1.

CIFAR-C: D. Hendrycks and T. Dietterich, ICLR 2019, arXiv 1903.12261. CIFAR-10.1: B. Recht et al., 2018,
arXiv 1806.00451.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from robusteval.data.arrays import Labels, Pixels, TestArrays, check_labels, check_length, open_array
from robusteval.data.catalogue import PUBLISHED, PublishedParams, absent
from robusteval.data.cifar_classes import CIFAR10_CLASSES, CIFAR100_CLASSES
from robusteval.data.folder_index import content_digests, stamped
from robusteval.data.places import cache_folder, dataset_place
from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import DataError
from robusteval.schema.types import Frozen

SEVERITIES = (1, 2, 3, 4, 5)
_SIDE = 32
_PUBLISHED_TEST = 10_000
_LABELS = "labels.npy"


class CifarShiftParams(PublishedParams):
    """Where the arrays lie."""

    cache: str | None = None
    """Folder that remembers the digests of the files; by default `~/.cache/robusteval`."""


class _CifarArrays(TestArrays[CifarShiftParams]):
    """Arrays of 32 x 32 images with the classes of CIFAR."""

    Params: ClassVar[type[Frozen]] = CifarShiftParams
    name: ClassVar[str]
    folder: ClassVar[str]
    """Folder that the published archive unpacks to."""
    class_names: ClassVar[tuple[str, ...]]

    @cached_property
    def revision(self) -> str:
        """SHA-256 over names and contents of the files."""
        files = [stamped(self.root, name) for name in self._names]
        manifest = cache_folder(self.params.cache) / "manifests" / f"{sha256_hex(str(self.root).encode())[:32]}.json"
        digests = content_digests(self.root, files, manifest)
        return sha256_hex("\0".join(f"{digests[name]} {name}" for name in self._names).encode())

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the published order."""
        return self.class_names

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, 32, 32)."""
        return (3, _SIDE, _SIDE)

    @property
    @abstractmethod
    def _names(self) -> tuple[str, ...]:
        """Files that belong to the dataset."""

    @cached_property
    def root(self) -> Path:
        """Folder that everything lies in."""
        root = dataset_place(self.name, self.params.path)
        if (root / self.folder).is_dir():
            return root / self.folder
        if not root.is_dir():
            raise absent(self.name, root)
        return root


class CifarC(_CifarArrays):
    """Corrupted test images of CIFAR, a domain for each corruption and severity, such as `fog-3`.

    A group is the test image that was corrupted, under the id that it has in CIFAR itself; so all domains show the same
    sources in the same order.
    """

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """`<corruption>-<severity>` for every array that is there."""
        return tuple(f"{name}-{severity}" for name in self._corruptions for severity in SEVERITIES)

    @cached_property
    def _corruptions(self) -> tuple[str, ...]:
        names = sorted(path.stem for path in self.root.glob("*.npy") if path.name != _LABELS and path.name[0] != ".")
        if not names:
            raise DataError(f"{self.root}: no corruption is there; put the published .npy files there")
        return tuple(names)

    @property
    def _names(self) -> tuple[str, ...]:
        return (*(f"{name}.npy" for name in self._corruptions), _LABELS)

    @cached_property
    def _labels(self) -> Labels:
        """(5 n,): the labels of n test images, repeated for every severity."""
        path = self.root / _LABELS
        labels = check_labels(path, open_array(path, "i", ()), len(self.class_names))
        n = len(labels) // len(SEVERITIES)
        check_length(path, len(labels), len(SEVERITIES) * (_PUBLISHED_TEST if self.params.complete else n))
        if any(not np.array_equal(labels[:n], labels[start : start + n]) for start in range(0, len(labels), n or 1)):
            raise DataError(f"{path}: the labels of the severities differ; get the file again")
        return labels

    def _length(self, domain: str) -> int:
        return len(self._labels) // len(SEVERITIES)

    def _arrays(self, domain: str) -> tuple[Pixels, Labels]:
        name, _, severity = domain.rpartition("-")
        path = self.root / f"{name}.npy"
        pixels = open_array(path, "u", (_SIDE, _SIDE, 3))
        check_length(path, len(pixels), len(self._labels))
        n = self._length(domain)
        first = (int(severity) - 1) * n
        return pixels[first : first + n], self._labels[first : first + n]

    def _group(self, domain: str, index: int) -> str:
        return f"test/{index:05d}"


class Cifar10C(CifarC):
    """CIFAR-10-C: the test images of CIFAR-10 under 19 corruptions at 5 severities."""

    name = "cifar10-c"
    folder = "CIFAR-10-C"
    class_names = CIFAR10_CLASSES


class Cifar100C(CifarC):
    """CIFAR-100-C: the test images of CIFAR-100 under 19 corruptions at 5 severities."""

    name = "cifar100-c"
    folder = "CIFAR-100-C"
    class_names = CIFAR100_CLASSES


class Cifar101(_CifarArrays):
    """CIFAR-10.1: new test images collected as those of CIFAR-10 were, in the two published versions."""

    name = "cifar10.1"
    folder = "datasets"
    class_names = CIFAR10_CLASSES

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """`v4` and `v6`, those that are there."""
        found = tuple(name for name in PUBLISHED[self.name].images if (self.root / _data_file(name)).is_file())
        if not found:
            raise DataError(f"{self.root}: neither {_data_file('v4')} nor {_data_file('v6')} is there; put one there")
        return found

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(name for domain in self.domains for name in (_data_file(domain), _label_file(domain)))

    def _length(self, domain: str) -> int:
        path = self.root / _data_file(domain)
        n = len(open_array(path, "u", (_SIDE, _SIDE, 3)))
        if self.params.complete:
            check_length(path, n, PUBLISHED[self.name].images[domain])
        return n

    def _arrays(self, domain: str) -> tuple[Pixels, Labels]:
        pixels = open_array(self.root / _data_file(domain), "u", (_SIDE, _SIDE, 3))
        path = self.root / _label_file(domain)
        labels = check_labels(path, open_array(path, "i", ()), len(self.class_names))
        check_length(path, len(labels), len(pixels))
        return pixels, labels

    def _group(self, domain: str, index: int) -> str:
        return f"{domain}/{index:05d}"


def _data_file(version: str) -> str:
    return f"cifar10.1_{version}_data.npy"


def _label_file(version: str) -> str:
    return f"cifar10.1_{version}_labels.npy"
