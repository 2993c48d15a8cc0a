"""Images decoded once into one memory-mapped uint8 array, with a checksum for each.

The array is a plain `.npy` file named after the digest of what it was made from, so it never goes stale. A damaged
file is reported, not replaced: whoever damaged it may damage results as well.
"""

from __future__ import annotations

import io
import math
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from robusteval.data.folder_index import complaint, reader_threads
from robusteval.data.imageset import COPIED_BYTES
from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import CorruptRecordError, DataError
from robusteval.schema.registry import load_target
from robusteval.store.atomic import write_atomically

if TYPE_CHECKING:
    from robusteval.data.computed import ComputedImages

_UNDECODABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's readers raise on a broken file."""
_DEEP_MODES = ("I", "F")
_CHUNK = 256


@dataclass(frozen=True)
class Source:
    """One file to decode: relative path and SHA-256 of its content."""

    path: str
    digest: str


@dataclass(frozen=True)
class Decoder:
    """How an image becomes pixels.

    Attributes:
        size: side of the square that is left of the image, resized with antialiasing; None keeps the image as it is.
        resample: filter of the resizing.
        stretch: resize the whole image, whatever its proportions, instead of its largest centred square.
        centre: share of that square's side, around its centre, which is kept.
    """

    size: int | None
    resample: Image.Resampling
    stretch: bool = False
    centre: float = 1.0

    def __call__(self, data: bytes) -> NDArray[np.uint8]:
        """Pixels (3, H, W); grey becomes three equal channels, transparency is dropped."""
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith(_DEEP_MODES):
                raise ValueError(f"more than 8 bits a channel (mode {image.mode}); convert it to 8 bits")
            picture = image.convert("RGBA").convert("RGB") if image.mode in ("P", "PA") else image.convert("RGB")
        if self.size is not None:
            width, height = picture.size
            side = min(width, height) * self.centre
            left, top = (width - side) / 2, (height - side) / 2
            box = None if self.stretch else (left, top, left + side, top + side)
            picture = picture.resize((self.size, self.size), self.resample, box=box)
        return np.ascontiguousarray(np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1))


class PixelCache:
    """The decoded images of one tree.

    Args:
        path: the `.npy` file; checksums and lock lie beside it.
        root: where the images come from.
        sources: N files, in the order in which their pixels are stored.
        shape: (3, H, W) of every image.
        decoder: how they are decoded.
        read: gives the content of a file by its path; by default from under `root`.
    """

    def __init__(
        self,
        path: Path,
        root: Path,
        sources: Sequence[Source],
        shape: tuple[int, int, int],
        decoder: Decoder,
        *,
        read: Callable[[str], bytes] | None = None,
    ) -> None:
        self.path = path
        self.root = root
        self.sources = sources
        self.shape = (len(sources), *shape)
        self.decoder = decoder
        self._content = read or (lambda name: (root / name).read_bytes())
        self._checksum_path = path.with_suffix(".crc32.npy")

    def open(self) -> NDArray[np.uint8]:
        """(N, 3, H, W), memory-mapped copy-on-write; decodes what was never decoded, once for all processes.

        Raises:
            DataError: images are broken (all are named), or the cache cannot be written.
            CorruptRecordError: the cache file is damaged.
        """
        if not self.path.exists():
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(self.path.with_suffix(".lock")):
                    if not self.path.exists():
                        self._build()
            except OSError as error:
                raise DataError(
                    f"{self.path.parent}: the image cache cannot be written ({error.strerror or error}); make room "
                    f"there or give another 'cache' folder"
                ) from None
        return self._read(self.path, self.shape, np.uint8)

    def at(self, positions: Sequence[int]) -> NDArray[np.uint8] | ComputedImages:
        """The images at ascending `positions`, each checked against its checksum.

        Returns:
            A view of the memory-mapped file where the images lie side by side; else a copy in memory, or from
            `COPIED_BYTES` on images that are read from the file when they are asked for.

        Raises:
            DataError: as for `open`.
            CorruptRecordError: as for `open`, or an image does not match its checksum.
        """
        first, last = (positions[0], positions[-1] + 1) if len(positions) else (0, 0)
        side_by_side = last - first == len(positions)
        stored = self.open()
        plain = np.asarray(stored)
        checksums = self._read(self._checksum_path, self.shape[:1], np.uint32)
        for position in positions:
            if zlib.crc32(plain[position].data) != checksums[position]:
                raise self._damaged(self.path, f"image {self.sources[position].path} fails its checksum")
        if side_by_side:
            return stored[first:last]
        if len(positions) * math.prod(self.shape[1:]) <= COPIED_BYTES:
            copied: NDArray[np.uint8] = plain[np.asarray(positions)]
            return copied
        # By its name, so that what reads ids only never reaches torch.
        chosen: ComputedImages = load_target("robusteval.data.computed:chosen_from")(stored, positions)
        return chosen

    def _read(self, path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
        except FileNotFoundError:
            raise self._damaged(path, "it is missing") from None
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged(path, str(error).rstrip(".")) from None
        if array.shape != shape or array.dtype != dtype:
            raise self._damaged(path, f"it holds {array.shape} {array.dtype}, not {shape} {np.dtype(dtype)}")
        return array

    def _damaged(self, path: Path, what: str) -> CorruptRecordError:
        return CorruptRecordError(
            f"{path}: this image cache is damaged ({what}); delete {self.path} to decode {self.root} again"
        )

    def _build(self) -> None:
        partial = self.path.with_suffix(".part")
        try:
            with partial.open("wb") as file:
                checksums = self._write(file)
                file.flush()
                os.fsync(file.fileno())
            stream = io.BytesIO()
            np.save(stream, np.array(checksums, dtype=np.uint32))
            write_atomically(self._checksum_path, stream.getvalue())
            partial.replace(self.path)
        finally:
            partial.unlink(missing_ok=True)

    def _write(self, file: BinaryIO) -> list[int]:
        """Write header and pixels through ordinary writes, which, unlike a memory map, report a full disk."""
        header = {"descr": "|u1", "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(file, header)
        checksums: list[int] = []
        problems: list[str] = []
        for decoded in self._decoded():
            if isinstance(decoded, str):
                problems.append(decoded)
            elif not problems:
                file.write(decoded.data)
                checksums.append(zlib.crc32(decoded.data))
        if problems:
            raise complaint(self.root, f"{len(problems)} of {len(self.sources)} images cannot be used", problems)
        return checksums

    def _decoded(self) -> Iterator[NDArray[np.uint8] | str]:
        with _large_pictures_allowed(), ThreadPoolExecutor(max_workers=reader_threads()) as pool:
            for start in range(0, len(self.sources), _CHUNK):
                yield from pool.map(self._decode, self.sources[start : start + _CHUNK])

    def _decode(self, source: Source) -> NDArray[np.uint8] | str:
        """Pixels of one file, or what is wrong with it."""
        try:
            data = self._content(source.path)
            if sha256_hex(data) != source.digest:
                return f"{source.path} (changed while it was read; run again)"
            pixels = self.decoder(data)
        except _UNDECODABLE as error:
            return f"{source.path} ({_first_line(error)}; get it again or remove it)"
        if pixels.shape != self.shape[1:]:
            found, expected = (f"{shape[-1]} x {shape[-2]}" for shape in (pixels.shape, self.shape))
            return f"{source.path} (is {found}, others are {expected}; set 'size')"
        return pixels


@contextmanager
def _large_pictures_allowed() -> Iterator[None]:
    """Read pictures of which Pillow would warn; what it takes for an attack it still refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _first_line(error: BaseException) -> str:
    text = str(error).partition("<_io.")[0].strip() or type(error).__name__
    return text.splitlines()[0]


def picture_shape(root: Path, paths: Sequence[str]) -> tuple[int, int, int]:
    """(3, H, W) of the first file that can be opened; only headers are read.

    Raises:
        DataError: none can.
    """
    problems: list[str] = []
    for path in paths:
        try:
            with _large_pictures_allowed(), Image.open(root / path) as image:
                return (3, image.height, image.width)
        except _UNDECODABLE as error:
            problems.append(f"{path} ({_first_line(error)}; get it again or remove it)")
    raise complaint(root, "no image can be opened", problems)
