"""What is known about published datasets before any file is opened: shape, size, source, licence, and how to get them.

Counts are those of the copies that DomainBed (Gulrajani and Lopez-Paz, ICLR 2021, arXiv 2007.01434) trains on, where
there is such a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from robusteval.schema.errors import DataError
from robusteval.schema.types import Frozen


@dataclass(frozen=True)
class Download:
    """One file that can be fetched.

    Attributes:
        url: where it is.
        name: what it is called here.
        digest: `md5:` or `sha256:` and the hexadecimal digest of the whole file.
        size: bytes, 0 if unknown.
    """

    url: str
    name: str
    digest: str
    size: int = 0


@dataclass(frozen=True)
class Published:
    """A dataset that others published.

    Attributes:
        title: authors, venue and year.
        homepage: where it is described and, if it cannot be fetched, where people get it.
        layout: what has to lie in its folder, in words.
        images: images per domain, in order of the domains' names; 0 where copies differ and the count is not checked.
        classes: number of classes.
        licence: terms of use as its authors state them, in words.
        downloads: files to fetch, archives among them unpacked in place.
    """

    title: str
    homepage: str
    layout: str
    images: Mapping[str, int]
    classes: int
    licence: str = "not stated by its authors; research use"
    downloads: tuple[Download, ...] = field(default=())


_DOMAIN_TREE = "<domain>/<class>/<file>"


def _imagenet_c() -> tuple[Download, ...]:
    """The five archives of ImageNet-C."""
    archives = (
        ("noise.tar", "e80562d7f6c3f8834afb1ecf27252745", 22_565_673_785),
        ("blur.tar", "2d8e81fdd8e07fef67b9334fa635e45c", 7_112_704_951),
        ("weather.tar", "33ffea4db4d93fe4a428c40a6ce0c25d", 12_797_438_995),
        ("digital.tar", "89157860d7b10d5797849337ca2e5c03", 7_757_510_705),
        ("extra.tar", "d492dfba5fc162d8ec2c3cd8ee672984", 15_789_490_144),
    )
    files = "https://zenodo.org/records/2235448/files"
    return tuple(Download(f"{files}/{name}", name, f"md5:{digest}", size) for name, digest, size in archives)


PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "pacs": Published(
            title="Li, Yang, Song and Hospedales, ICCV 2017, arXiv 1710.03077",
            homepage="https://sketchx.eecs.qmul.ac.uk/downloads/",
            layout=_DOMAIN_TREE,
            images={"art_painting": 2048, "cartoon": 2344, "photo": 1670, "sketch": 3929},
            classes=7,
        ),
        "vlcs": Published(
            title="Fang, Xu and Rockmore, ICCV 2013",
            homepage="https://github.com/facebookresearch/DomainBed",
            layout=_DOMAIN_TREE,
            images={"Caltech101": 1415, "LabelMe": 2656, "SUN09": 3282, "VOC2007": 3376},
            classes=5,
        ),
        "office-home": Published(
            title="Venkateswara, Eusebio, Chakraborty and Panchanathan, CVPR 2017, arXiv 1706.07522",
            homepage="https://www.hemanthdv.org/officeHomeDataset.html",
            layout=_DOMAIN_TREE,
            images={"Art": 2427, "Clipart": 4365, "Product": 4439, "Real World": 4357},
            classes=65,
            licence="non-commercial research and education, fair use",
        ),
        "terra-incognita": Published(
            title="Beery, Van Horn and Perona, ECCV 2018, arXiv 1807.04975; four locations as in DomainBed",
            homepage="https://lila.science/datasets/caltech-camera-traps",
            layout=_DOMAIN_TREE,
            # Extractions by different versions of the annotations hold 24,330 or 24,788 images.
            images={"location_100": 0, "location_38": 0, "location_43": 0, "location_46": 0},
            classes=10,
            licence="Community Data License Agreement, permissive variant",
        ),
        "domainnet": Published(
            title="Peng, Bai, Xia, Huang, Saenko and Wang, ICCV 2019, arXiv 1812.01754; the cleaned version",
            homepage="https://ai.bu.edu/M3SDA/",
            layout=_DOMAIN_TREE,
            images={
                "clipart": 48129,
                "infograph": 51605,
                "painting": 72266,
                "quickdraw": 172500,
                "real": 172947,
                "sketch": 69128,
            },
            classes=345,
            licence="research use, under fair use of the pictures",
        ),
        "cifar10": Published(
            title="Krizhevsky, technical report, 2009",
            homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
            layout="cifar-10-batches-bin/ or cifar-10-batches-py/ or train|test/<class>/<file>",
            images={"cifar10": 60000},
            classes=10,
            downloads=(
                Download(
                    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                    "cifar-10-binary.tar.gz",
                    "md5:c32a1d4ab5d03f1284b67883e8d87530",
                    170052171,
                ),
            ),
        ),
        "cifar100": Published(
            title="Krizhevsky, technical report, 2009",
            homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
            layout="cifar-100-binary/ or cifar-100-python/ or train|test/<class>/<file>",
            images={"cifar100": 60000},
            classes=100,
            downloads=(
                Download(
                    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
                    "cifar-100-binary.tar.gz",
                    "md5:03b5dce01913d631647c71ecec9e9cb8",
                    168513733,
                ),
            ),
        ),
        "cifar10-c": Published(
            title="Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261",
            homepage="https://zenodo.org/records/2535967",
            layout="<corruption>.npy and labels.npy",
            images={},
            classes=10,
            licence="CC BY 4.0",
            downloads=(
                Download(
                    "https://zenodo.org/records/2535967/files/CIFAR-10-C.tar",
                    "CIFAR-10-C.tar",
                    "md5:56bf5dcef84df0e2308c6dcbcbbd8499",
                    2918471680,
                ),
            ),
        ),
        "cifar100-c": Published(
            title="Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261",
            homepage="https://zenodo.org/records/3555552",
            layout="<corruption>.npy and labels.npy",
            images={},
            classes=100,
            licence="CC BY 4.0",
            downloads=(
                Download(
                    "https://zenodo.org/records/3555552/files/CIFAR-100-C.tar",
                    "CIFAR-100-C.tar",
                    "md5:11f0ed0f1191edbf9fa23466ae6021d3",
                    2918473216,
                ),
            ),
        ),
        "cifar10.1": Published(
            title="Recht, Roelofs, Schmidt and Shankar, 2018, arXiv 1806.00451",
            homepage="https://github.com/modestyachts/CIFAR-10.1",
            layout="cifar10.1_v4_data.npy and _labels.npy, the same for v6",
            images={"v4": 2021, "v6": 2000},
            classes=10,
            licence="MIT",
        ),
        "imagenet": Published(
            title="Russakovsky et al., IJCV 2015; V2 arXiv 1902.10811, A 1907.07174, R 2006.16241, Sketch 1905.13549",
            homepage="https://www.image-net.org/download.php",
            layout="train/, val/, v2/, a/, r/, sketch/, each with <wnid>/<file>",
            images={"val": 50000, "v2": 10000, "a": 7500, "r": 30000, "sketch": 50889},
            classes=1000,
            licence="non-commercial research and education (image-net.org/download)",
        ),
        "imagenet-c": Published(
            title="Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261",
            homepage="https://zenodo.org/records/2235448",
            layout="<corruption>/<severity>/<wnid>/<file>",
            images={},
            classes=1000,
            licence="CC BY 4.0; the images under the terms of ImageNet",
            downloads=_imagenet_c(),
        ),
    }
)
"""Datasets with a name, by that name."""


class PublishedParams(Frozen):
    """Where a published dataset lies, and whether it must be whole."""

    path: str | None = None
    """Folder of the dataset; by default `~/.cache/robusteval/datasets/NAME`, which `robusteval data link` sets."""
    complete: bool = True
    """Refuse a copy with other numbers of images or classes than were published."""


def absent(name: str, place: Path) -> DataError:
    """The error for a published dataset that does not lie at `place`: what it needs, and how to get it."""
    published = PUBLISHED[name]
    fetch = f"run `robusteval data fetch {name}`, " if published.downloads else ""
    return DataError(
        f"{place}: {name} is not there; it needs {published.layout}; {fetch}link it with `robusteval data link {name} "
        f"FOLDER`, or set 'path'"
    )
