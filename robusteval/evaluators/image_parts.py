"""The file of some saved adversarial images: a safetensors blob that says of each image whose it is.

`levels` (M, C, H, W) uint8 holds images that lie on the grid of 255 levels, `pixels` (L, C, H, W) float32 in [0, 1] the
others. `levels_example` and `pixels_example` give the position of each image's example in the slice, `levels_stage` and
`pixels_stage` the attack that found it, as a position in `stages`. The metadata hold `stages`, the digest `ids` of the
slice's example ids, and `question`, the digest of what was evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robusteval.schema.errors import CorruptRecordError
from robusteval.store.columns import read_columns, text_list, write_columns

FORMAT = "robusteval adversarial images 1"
IMAGES = "file of adversarial images"
"""What messages call such a file."""
KINDS = (("levels", np.dtype(np.uint8)), ("pixels", np.dtype(np.float32)))


@dataclass(frozen=True)
class SavedImage:
    """One adversarial image.

    Attributes:
        stage: position of the attack that found it.
        image: (C, H, W) uint8 levels, or float32 in [0, 1].
    """

    stage: int
    image: NDArray[Any]


@dataclass(frozen=True)
class About:
    """What the images of an evaluation are about.

    Attributes:
        question: digest of what is evaluated.
        ids_digest: digest of the ordered example ids.
        stages: labels of the attacks.
        n: number of examples.
        shape: (C, H, W).
    """

    question: str
    ids_digest: str
    stages: tuple[str, ...]
    n: int
    shape: tuple[int, int, int]


def encode_part(images: Mapping[int, SavedImage], about: About) -> bytes:
    """Images by the position of their example, as a file."""
    arrays: dict[str, NDArray[Any]] = {}
    for kind, dtype in KINDS:
        chosen = [(example, saved) for example, saved in sorted(images.items()) if saved.image.dtype == dtype]
        stacked = [saved.image for _, saved in chosen]
        arrays[kind] = np.stack(stacked) if stacked else np.zeros((0, *about.shape), dtype=dtype)
        arrays[f"{kind}_example"] = np.array([example for example, _ in chosen], dtype=np.int64)
        arrays[f"{kind}_stage"] = np.array([saved.stage for _, saved in chosen], dtype=np.int64)
    metadata = {
        "format": FORMAT,
        "question": about.question,
        "ids": about.ids_digest,
        "stages": json.dumps(list(about.stages)),
    }
    return write_columns(arrays, metadata)


def decode_part(
    blob: bytes, *, ids_digest: str, stages: Sequence[str], n: int, shape: tuple[int, ...]
) -> dict[int, SavedImage]:
    """Inverse of `encode_part`; nothing in the file is believed but what is checked here.

    Args:
        blob: content of the file.
        ids_digest: digest of the ordered example ids that it must be about.
        stages: attacks that it may name.
        n: number of examples.
        shape: (C, H, W) of every image.

    Raises:
        CorruptRecordError: it is no such file, or about something else.
    """
    arrays, metadata = read_columns(blob)
    if metadata.get("format") != FORMAT:
        raise CorruptRecordError(f"not a file of adversarial images of this version ({FORMAT!r})")
    if metadata.get("ids") != ids_digest:
        raise CorruptRecordError("the adversarial images are about other examples than their record")
    if unknown := sorted(set(text_list(metadata, "stages")) - set(stages)):
        raise CorruptRecordError(f"the adversarial images name an attack that their record does not have: {unknown[0]}")
    found: dict[int, SavedImage] = {}
    for kind, dtype in KINDS:
        examples, numbers = arrays.get(f"{kind}_example"), arrays.get(f"{kind}_stage")
        images = arrays.get(kind)
        if images is None or examples is None or numbers is None:
            raise CorruptRecordError(f"the adversarial images have no {kind!r}, or do not say whose they are")
        _check(kind, images, examples, numbers, (dtype, tuple(shape), n, len(stages)))
        for example, stage, image in zip(examples.tolist(), numbers.tolist(), images, strict=True):
            if example in found:
                raise CorruptRecordError(f"two adversarial images are said to be of example {example}")
            found[example] = SavedImage(stage, image)
    return found


def _check(
    kind: str,
    images: NDArray[Any],
    examples: NDArray[Any],
    numbers: NDArray[Any],
    wanted: tuple[np.dtype[Any], tuple[int, ...], int, int],
) -> None:
    dtype, shape, n, stages = wanted
    count = len(examples) if examples.ndim == 1 else -1
    if images.dtype != dtype or images.shape != (count, *shape):
        raise CorruptRecordError(
            f"the adversarial images {kind!r} are {images.shape} {images.dtype}, not ({max(count, 0)}, "
            f"{', '.join(map(str, shape))}) {dtype}"
        )
    for values, limit in ((examples, n), (numbers, stages)):
        if values.dtype != np.int64 or values.shape != (count,):
            raise CorruptRecordError(f"the adversarial images {kind!r} do not say whose each of them is")
        if count and not (values.min() >= 0 and values.max() < limit):
            raise CorruptRecordError(f"the adversarial images {kind!r} name an example or an attack that is not there")
