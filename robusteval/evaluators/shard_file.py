"""The file of one share of an adversarial evaluation: what was found, by example id.

A safetensors file with the columns of `details` for the examples of the share; everything else is JSON in the metadata.
It is read by another process, perhaps on another machine, so nothing in it is believed but what is checked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from robusteval.schema.errors import CorruptRecordError
from robusteval.schema.records import Bits, Budget, Flag
from robusteval.schema.shards import Shard
from robusteval.schema.types import Digest, Frozen, NonNegativeInt
from robusteval.store.columns import Columns, read_columns, write_columns


class FoundPart(Frozen):
    """What one attack, or the clean prediction, found."""

    stands: Bits
    """For each example of the share, in the order of `ids`: still classified correctly."""
    symptoms: dict[str, NonNegativeInt]
    """Symptom to number of examples."""
    attacked: NonNegativeInt
    """Number of examples that were really attacked."""


class Found(Frozen):
    """What a share found, without the columns."""

    format: Literal[1] = 1
    """Version of this format."""
    question: Digest
    """Digest of the whole evaluation, whoever measures it."""
    shard: Shard
    """Which share."""
    ids: tuple[str, ...]
    """Examples of the share."""
    parts: dict[str, FoundPart]
    """`clean` and each attack."""
    budget: Budget
    """Passes spent on the examples of the share."""
    repeated: Budget
    """Passes that every share spends alike; of all shares they count once."""
    flags: tuple[Flag, ...] | None
    """Flags of the masking checks; the first share alone looks for them."""
    images: NonNegativeInt
    """Files of adversarial images."""


@dataclass(frozen=True)
class ShardFile:
    """A decoded file.

    Attributes:
        found: what was found.
        columns: columns of the details, in the order of `found.ids`.
    """

    found: Found
    columns: Columns

    def encode(self) -> bytes:
        """The file's content."""
        return write_columns(self.columns, {"found": self.found.model_dump_json()})


def decode_shard(blob: bytes) -> ShardFile:
    """Inverse of `ShardFile.encode`.

    Raises:
        CorruptRecordError: it is no such file, or its parts do not fit together.
    """
    columns, metadata = read_columns(blob)
    try:
        found = Found.model_validate_json(metadata.get("found", ""))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise CorruptRecordError(f"not a share of an evaluation: {first['msg']}") from None
    n = len(found.ids)
    if wrong := [name for name, part in found.parts.items() if part.stands.n != n]:
        raise CorruptRecordError(f"the share says {n} examples and its part {wrong[0]!r} has another number")
    if wrong := [name for name, values in columns.items() if not values.ndim or values.shape[-1] != n]:
        raise CorruptRecordError(f"the share says {n} examples and its column {wrong[0]!r} has another number")
    return ShardFile(found, columns)
