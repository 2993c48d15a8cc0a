"""Safetensors blobs without torch: named arrays and text metadata, checked before anything is believed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from robusteval.schema.errors import CorruptRecordError

Columns = dict[str, NDArray[Any]]
"""Arrays by name."""


def write_columns(arrays: Columns, metadata: dict[str, str]) -> bytes:
    """A safetensors blob whose bytes depend on nothing but arrays and metadata, so that its digest means something.

    The library writes several metadata in an order that changes from process to process.
    """
    blob: bytes = safetensors.numpy.save(arrays, metadata)
    length = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + blob[8 + length :]


def read_metadata(blob: bytes) -> dict[str, str]:
    """Metadata of a safetensors blob.

    Raises:
        CorruptRecordError: it is none.
    """
    length = int.from_bytes(blob[:8], "little")
    try:
        found = json.loads(blob[8 : 8 + length]).get("__metadata__", {})
    except (ValueError, AttributeError, RecursionError) as error:
        raise CorruptRecordError(f"the stored columns of an evaluation are damaged: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise CorruptRecordError("the stored columns of an evaluation are damaged: their metadata is no table of texts")
    return found


def read_columns(blob: bytes) -> tuple[Columns, dict[str, str]]:
    """Arrays and metadata of a safetensors blob.

    Raises:
        CorruptRecordError: it is none.
    """
    metadata = read_metadata(blob)
    try:
        arrays = safetensors.numpy.load(blob)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CorruptRecordError(f"the stored columns of an evaluation are damaged: {error}") from error
    return {name: np.asarray(array) for name, array in arrays.items()}, metadata


def text_list(metadata: dict[str, str], name: str) -> list[str]:
    """A list of texts that the metadata holds as JSON.

    Raises:
        CorruptRecordError: it is not there, or something else.
    """
    try:
        found = json.loads(metadata[name])
    except (KeyError, ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise CorruptRecordError(f"the stored columns of an evaluation are damaged: {name!r} is no list of names")
    return found
