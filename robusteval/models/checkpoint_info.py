"""What a checkpoint says about itself, read from its header alone: no torch, no tensor is touched.

A checkpoint is one safetensors file: 8 bytes little-endian header length, a JSON header, raw tensors. Its metadata
holds one entry, `robusteval`: the canonical JSON of a `CheckpointHeader`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from robusteval.schema.digest import canonical_json
from robusteval.schema.errors import CheckpointError
from robusteval.schema.types import Component, Digest, Frozen, PositiveFloat

FORMAT_VERSION = 1
"""Version of the checkpoint format; readers refuse a newer one by name."""

METADATA_KEY = "robusteval"
"""Entry of the safetensors metadata that holds the header. One entry only: the order of several is not defined, and
equal models must give equal bytes."""

_HEADER_LIMIT = 100_000_000

Side = Annotated[int, Field(gt=0, le=65_536, strict=True)]
Mean = Annotated[float, Field(allow_inf_nan=False)]


class CheckpointInfo(Frozen):
    """Everything about a model that its weights do not say."""

    architecture: Component
    """Network with resolved parameters."""
    classes: Annotated[int, Field(ge=2, le=1_000_000, strict=True)]
    """Number of classes."""
    class_names: tuple[str, ...] | None = None
    """Class names in label order, if they are known."""
    input_shape: tuple[Side, Side, Side]
    """(C, H, W)."""
    mean: tuple[Mean, ...]
    """Per-channel mean on the [0, 1] scale."""
    std: tuple[PositiveFloat, ...]
    """Per-channel standard deviation on the [0, 1] scale."""
    licence: str = ""
    """Licence of the weights."""
    source: str = ""
    """Where the weights come from."""
    notes: str = ""
    """Anything else worth knowing."""

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise ValueError(f"{len(self.class_names)} class names for {self.classes} classes")
        channels = self.input_shape[0]
        if len(self.mean) != channels or len(self.std) != channels:
            raise ValueError(f"mean and std need {channels} values each, one a channel")
        return self


class CheckpointHeader(Frozen):
    """The metadata entry of a checkpoint."""

    format_version: Literal[1] = 1
    """Version of this format."""
    info: CheckpointInfo
    """What the weights are."""
    digest: Digest
    """SHA-256 over `info` and all tensors: damage anywhere in the file is noticed."""

    def encode(self) -> str:
        """Canonical JSON."""
        return canonical_json(self.model_dump(mode="json")).decode()


def file_kind(head: bytes) -> Literal["safetensors", "zip", "pickle", "html", "hdf5", "empty", "unknown"]:
    """Tell the kind of a file from its first bytes (16 suffice, more help with web pages)."""
    if not head:
        return "empty"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    # A safetensors header that is 128 bytes and a bit long also starts with 0x80, so its brace decides first.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _HEADER_LIMIT:
        return "safetensors"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    if head.lstrip()[:1] == b"<":
        return "html"
    return "hdf5" if head.startswith(b"\x89HDF") else "unknown"


def read_header(data: bytes, *, source: str) -> dict[str, Any]:
    """The JSON header of a safetensors file.

    Args:
        data: the file, or its beginning up to the end of the header.
        source: name of the file in error messages.

    Raises:
        CheckpointError: the file is no safetensors file, or is cut off or damaged inside the header.
    """
    kind = file_kind(data[:512])
    if kind in ("zip", "pickle"):
        raise CheckpointError(
            f"{source}: this is a pickle checkpoint (.pt, .pth), which can run code when it is read; convert it with "
            f"`robusteval import-weights {source} --architecture NAME ...` (robusteval.models.importing.import_weights)"
        )
    if kind != "safetensors":
        found = {"empty": "is empty", "html": "is a web page", "hdf5": "is an HDF5 file"}.get(
            kind, "is not a safetensors file, or its first bytes are damaged"
        )
        raise CheckpointError(f"{source}: the file {found}; give a checkpoint written by robusteval")
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8:
        raise CheckpointError(f"{source}: the file is cut off inside its header; copy or download it again")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        raise CheckpointError(f"{source}: the header of the file is damaged; copy or download it again") from None
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise CheckpointError(f"{source}: the header of the file is damaged; copy or download it again")
    return header


def parse_header(header: dict[str, Any], *, source: str) -> CheckpointHeader:
    """The robusteval part of a safetensors header.

    Raises:
        CheckpointError: it is missing, of a newer version, or damaged.
    """
    text = header.get("__metadata__", {}).get(METADATA_KEY)
    if text is None:
        raise CheckpointError(
            f"{source}: the file holds weights but not what they are (architecture, classes, normalisation); add it "
            f"with `robusteval import-weights {source} --architecture NAME ...`"
        )
    try:
        fields = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise CheckpointError(f"{source}: the metadata is damaged; copy or download the file again") from None
    found = fields.get("format_version") if isinstance(fields, dict) else None
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise CheckpointError(
            f"{source}: checkpoint format {found} is newer than this robusteval reads ({FORMAT_VERSION}); upgrade it"
        )
    try:
        return CheckpointHeader.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "header"
        raise CheckpointError(f"{source}: the metadata is damaged: {where}: {first['msg']}") from None


def inspect_checkpoint(checkpoint: bytes | Path, *, source: str | None = None) -> CheckpointInfo:
    """What a checkpoint says about itself; its tensors are neither read nor verified.

    Args:
        checkpoint: the file's path or content.
        source: name of the file in error messages; by default its path.

    Raises:
        CheckpointError: the file is missing, is no checkpoint, or is damaged inside the header.
    """
    name = source or (str(checkpoint) if isinstance(checkpoint, Path) else "checkpoint")
    data = _beginning(checkpoint, name) if isinstance(checkpoint, Path) else checkpoint
    return parse_header(read_header(data, source=name), source=name).info


def _beginning(path: Path, source: str) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(512)
            length = int.from_bytes(head[:8], "little")
            return head + file.read(length) if file_kind(head) == "safetensors" else head
    except OSError as error:
        raise CheckpointError(f"{source}: cannot read the checkpoint: {error.strerror or error}") from None


def check_fits(
    info: CheckpointInfo, classes: Sequence[str] | int, input_shape: tuple[int, int, int], *, source: str
) -> None:
    """Check that a model can be started from a checkpoint, or measured, on given data.

    Args:
        info: what the checkpoint says.
        classes: class names of the data in label order, or their number.
        input_shape: (C, H, W) of the data.
        source: name of the checkpoint in error messages.

    Raises:
        CheckpointError: number or names of the classes, or the image shape, differ.
    """
    count = classes if isinstance(classes, int) else len(classes)
    if info.classes != count:
        raise CheckpointError(
            f"{source}: the checkpoint has {info.classes} classes{_listed(info.class_names)}, the data has "
            f"{count}{_listed(None if isinstance(classes, int) else classes)}; start from a model of the same classes"
        )
    if info.class_names is not None and not isinstance(classes, int) and info.class_names != tuple(classes):
        raise CheckpointError(
            f"{source}: the checkpoint's classes{_listed(info.class_names)} are not those of the data"
            f"{_listed(classes)}, in the same order; start from a model of the same classes"
        )
    if info.input_shape != tuple(input_shape):
        raise CheckpointError(
            f"{source}: the checkpoint takes images of shape {info.input_shape}, the data has {tuple(input_shape)} "
            f"(channels, height, width); start from a model of the same input"
        )


def _listed(names: Sequence[str] | None) -> str:
    if names is None:
        return ""
    return f" ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
