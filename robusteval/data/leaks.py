"""Images that stand in two places: equal pixels, and pictures that are nearly the same, across splits and domains.

Near duplicates are found in two steps: a 64-bit difference hash (is each cell of a 9 x 8 picture brighter than its
right neighbour?) proposes pairs, and the correlation of two 16 x 16 grey pictures decides, because flat drawings share
many bits of a hash by chance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robusteval.data.folder_index import reader_threads
from robusteval.data.imageset import ImageSet

HASH_DISTANCE = 6
"""Bits of the hash up to which two images are compared further."""
CORRELATION = 0.98
"""Correlation of the grey pictures from which two images are near duplicates."""
_SIDE = 16
_ROWS = 1024

Place = tuple[str, str]
"""Domain and split."""


@dataclass(frozen=True)
class Twin:
    """Two images that look alike.

    Attributes:
        first: id of one.
        second: id of the other.
        places: domain and split of each.
        same_label: whether they have one class.
        similarity: 1 for equal pixels, else the correlation of the grey pictures.
    """

    first: str
    second: str
    places: tuple[Place, Place]
    same_label: bool
    similarity: float

    @property
    def exact(self) -> bool:
        """Whether the pixels are equal."""
        return self.similarity >= 1.0


@dataclass(frozen=True)
class Fingerprints:
    """What is kept of N images.

    Attributes:
        ids: example ids.
        labels: (N,).
        places: where each stands.
        exact: digests of the pixels.
        bits: (N, 64) difference hashes, as -1 and 1.
        grey: (N, 256) grey pictures with mean 0 and length 1; flat ones are 0.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    places: tuple[Place, ...]
    exact: tuple[bytes, ...]
    bits: NDArray[np.float32]
    grey: NDArray[np.float32]

    @staticmethod
    def join(parts: Sequence[Fingerprints]) -> Fingerprints:
        """All images of several sets."""
        return Fingerprints(
            ids=tuple(name for part in parts for name in part.ids),
            labels=np.concatenate([part.labels for part in parts]),
            places=tuple(place for part in parts for place in part.places),
            exact=tuple(digest for part in parts for digest in part.exact),
            bits=np.concatenate([part.bits for part in parts]),
            grey=np.concatenate([part.grey for part in parts]),
        )


def fingerprint(images: ImageSet, split: str, progress: Callable[[int, int], None]) -> Fingerprints:
    """Fingerprints of a set of stored images.

    Args:
        images: the set.
        split: its split.
        progress: told how many images of how many are done.
    """
    bits = np.empty((len(images), 64), dtype=np.float32)
    grey = np.empty((len(images), _SIDE * _SIDE), dtype=np.float32)
    exact: list[bytes] = []
    pixels = np.asarray(images.images)
    with ThreadPoolExecutor(max_workers=reader_threads()) as pool:
        for index, (digest, hashed, small) in enumerate(pool.map(_look, pixels)):
            exact.append(digest)
            bits[index], grey[index] = hashed, small
            progress(index + 1, len(images))
    places = tuple((domain, split) for domain in images.domains)
    return Fingerprints(images.ids, images.labels, places, tuple(exact), bits, grey)


def _look(pixels: NDArray[np.uint8]) -> tuple[bytes, NDArray[np.float32], NDArray[np.float32]]:
    """Digest, difference hash and grey picture of one image (C, H, W)."""
    colours = pixels.transpose(1, 2, 0)
    picture = Image.fromarray(colours[..., 0] if colours.shape[-1] == 1 else np.ascontiguousarray(colours[..., :3]))
    luminance = picture.convert("L")
    cells = np.asarray(luminance.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    small = np.asarray(luminance.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32).ravel()
    small = small - small.mean()
    length = float(np.linalg.norm(small))
    bits = np.where(cells[:, :-1] > cells[:, 1:], 1.0, -1.0).astype(np.float32).ravel()
    digest = hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=16).digest()
    return digest, bits, small / length if length > 0 else small


def find_twins(prints: Fingerprints) -> Iterator[Twin]:
    """Pairs of distinct images in different places, each pair once; equal pixels also within one place."""
    n = len(prints.ids)
    for start in range(0, n, _ROWS):
        stop = min(start + _ROWS, n)
        # The dot product of two hashes of -1 and 1 is 64 minus twice the number of bits that differ.
        agreement = prints.bits[start:stop] @ prints.bits[start:].T
        for row, column in np.argwhere(agreement >= 64 - 2 * HASH_DISTANCE):
            first, second = int(start + row), int(start + column)
            if first < second and prints.ids[first] != prints.ids[second]:
                twin = _compare(prints, first, second)
                if twin is not None:
                    yield twin


def _compare(prints: Fingerprints, first: int, second: int) -> Twin | None:
    places = (prints.places[first], prints.places[second])
    same = prints.exact[first] == prints.exact[second]
    if not same and places[0] == places[1]:
        return None
    similarity = 1.0 if same else min(float(prints.grey[first] @ prints.grey[second]), 0.9999)
    if similarity < CORRELATION:
        return None
    same_label = bool(prints.labels[first] == prints.labels[second])
    return Twin(prints.ids[first], prints.ids[second], places, same_label, similarity)
