"""What the 19 common corruptions share: preset, severity, mode and the digest of the constants."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from robusteval.schema.types import Frozen
from robusteval.shifts.base import Shift
from robusteval.shifts.tables import CONSTANTS, TABLE, Preset

Mode = Literal["replay", "fast"]
Severity = Annotated[int, Field(ge=1, le=5, strict=True)]


class CorruptionParams(Frozen):
    """Which constants a corruption takes, and how exactly it is computed."""

    preset: Preset
    """Constants of the published set: `imagenet-c` for 224 pixels, `cifar10-c` for 32, `tiny-imagenet-c` for 64."""
    severity: Severity = 3
    """From 1 to 5."""
    mode: Mode = "replay"
    """`replay`: JPEG on a CPU is libjpeg's own; `fast`: whole numbers on the device throughout. Equal to the bit."""
    table: str = TABLE
    """Digest of the constants and of the engine's protocol version; a record names what it was made with."""

    @field_validator("table")
    @classmethod
    def _is_current(cls, value: str) -> str:
        if value != TABLE:
            raise ValueError(f"this version corrupts with table {TABLE!r}; leave the parameter out")
        return value


class Corruption(Shift[CorruptionParams]):
    """A corruption at one severity. `replay` and `fast` agree unless the corruption says otherwise."""

    Params = CorruptionParams

    @property
    def domain(self) -> str:
        """Name and severity, such as `fog-3`."""
        return f"{self.name}-{self.params.severity}"

    @property
    def constants(self) -> Any:
        """Row of the table for this preset and severity."""
        return CONSTANTS[self.params.preset][self.name][self.params.severity - 1]
