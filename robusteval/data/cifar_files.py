"""Reading the files in which CIFAR-10 and CIFAR-100 are published.

The binary version is plain bytes. The Python version is a pickle, which could run code when it is read; here it is
read by an unpickler that knows no class and no function of any module. What the published files name (numpy's array
and type, a codec) is replaced by objects that only remember what they were given, and everything else is refused.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robusteval.data.arrays import Labels, Pixels, check_labels
from robusteval.schema.errors import DataError

SIDE = 32
PIXELS = 3 * SIDE * SIDE
"""Bytes of one image: all red, then all green, then all blue."""
_LIMIT = 400_000_000
"""Bytes of the largest pickle that is read; the published ones have 31 to 155 million."""


def read_binary(folder: Path, names: Sequence[str], *, label_bytes: int, classes: int) -> tuple[Pixels, Labels]:
    """Images (N, 3, 32, 32) and labels (N,) of binary batches, in order.

    Args:
        folder: where the batches are.
        names: their names.
        label_bytes: bytes before the pixels of each image; the last of them is the label.
        classes: number of classes.

    Raises:
        DataError: a file is missing or of the wrong length, or holds a label out of range.
    """
    pixels, labels = [], []
    record = label_bytes + PIXELS
    for name in names:
        data = _read(folder / name)
        if not data or len(data) % record:
            raise DataError(
                f"{folder / name}: {len(data)} bytes are no whole images of {record} bytes; get the file again"
            )
        rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, record)
        labels.append(check_labels(folder / name, rows[:, label_bytes - 1], classes))
        pixels.append(rows[:, label_bytes:].reshape(-1, 3, SIDE, SIDE))
    return np.concatenate(pixels), np.concatenate(labels)


def read_pickled(folder: Path, names: Sequence[str], *, label_key: str, classes: int) -> tuple[Pixels, Labels]:
    """Images (N, 3, 32, 32) and labels (N,) of Python batches, in order; no code in them is run.

    Args:
        folder: where the batches are.
        names: their names.
        label_key: entry that holds the labels.
        classes: number of classes.

    Raises:
        DataError: a file is missing, damaged, or holds anything but what was published.
    """
    pixels, labels = [], []
    for name in names:
        path = folder / name
        batch = _unpickled(path)
        found = {_text(key): value for key, value in batch.items()} if isinstance(batch, dict) else {}
        rows, targets = found.get("data"), found.get(label_key)
        if not isinstance(rows, _Array) or not isinstance(targets, list):
            raise DataError(f"{path}: has no entries 'data' and {label_key!r}; get the file again")
        if not all(type(target) is int for target in targets):
            raise DataError(f"{path}: has labels that are no whole numbers; get the file again")
        images = rows.pixels(path)
        if len(images) != len(targets):
            raise DataError(f"{path}: holds {len(images)} images and {len(targets)} labels; get the file again")
        labels.append(check_labels(path, np.array(targets, dtype=np.int64), classes))
        pixels.append(images)
    return np.concatenate(pixels), np.concatenate(labels)


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _LIMIT:
            raise DataError(f"{path}: {size} bytes are more than any published batch has; get the file again")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); put the published file there") from None


class _Type:
    """Stands for a numpy type: remembers its code."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = _text(code)

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, of no meaning for single bytes."""


class _Array:
    """Stands for a numpy array: remembers shape, type and bytes."""

    def __init__(self, *_: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def pixels(self, path: Path) -> NDArray[np.uint8]:
        """Images (N, 3, 32, 32) of the bytes that were remembered."""
        match self.state:
            case (int(), (int(n), int(width)), _Type(code="u1"), False | 0, bytes(data)) if (
                width == PIXELS and n > 0 and len(data) == n * width
            ):
                return np.frombuffer(data, dtype=np.uint8).reshape(n, 3, SIDE, SIDE)
        raise DataError(f"{path}: 'data' is no array of (N, {PIXELS}) bytes; get the file again")


def _encoded(text: object = "", _codec: object = "") -> bytes:
    """Stands for `codecs.encode`, by which Python 3 writes the bytes of an array into an old pickle."""
    return text.encode("latin1") if isinstance(text, str) else b""


_INERT = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encoded,
}


class _Inert(pickle.Unpickler):
    """Unpickler in which every name leads to an object that does nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name that the published files hold.

        Raises:
            pickle.UnpicklingError: any other name.
        """
        if (module, name) not in _INERT:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no published batch does")
        return _INERT[module, name]


def _unpickled(path: Path) -> Any:
    data = _read(path)
    try:
        return _Inert(io.BytesIO(data), encoding="bytes").load()
    # A damaged pickle may ask its stack, memo and stand-ins for anything.
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        OverflowError,
    ) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{path}: is no published batch ({reason}); get the file again") from None
    except (MemoryError, RecursionError):
        raise DataError(f"{path}: is no published batch (it asks for too much memory); get the file again") from None


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
