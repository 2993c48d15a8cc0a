"""Values that everything else is written in: frozen models, exact epsilons, threat models."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic_core import core_schema

Progress = Callable[[float, str], None]
"""Called with the finished fraction in [0, 1] of a cell and a few words on what runs now."""

JsonValue = Any
"""A value that JSON can hold; pydantic's own recursive type does not survive `frozen` hashing."""

MAX_INT = 2**53 - 1
"""Largest whole number that canonical JSON, whose numbers are doubles, can write exactly."""

Fraction01 = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False, strict=True)]
PositiveInt = Annotated[int, Field(gt=0, le=MAX_INT, strict=True)]
NonNegativeInt = Annotated[int, Field(ge=0, le=MAX_INT, strict=True)]
NonNegativeFloat = Annotated[float, Field(ge=0.0, allow_inf_nan=False, strict=True)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False, strict=True)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+@=-]{0,79}$")]
"""A label or suite name: it becomes part of file names, so no slash, no leading dot, at most 80 characters."""


class Frozen(BaseModel):
    """Base of every schema model: immutable, closed, and without NaN."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )


class Norm(StrEnum):
    """The norm of a threat model's ball."""

    LINF = "linf"
    L2 = "l2"
    L1 = "l1"


class Access(StrEnum):
    """What the attacker may see of the model."""

    WHITE_BOX = "white-box"
    SCORE = "score"
    DECISION = "decision"


class Epsilon:
    """A perturbation radius kept as the exact fraction that was written.

    Reads `8/255`, `0.5`, `1e-3`, integers and floats; prints as written. Two epsilons are equal when their
    fractions are, so `16/510 == 8/255`.

    Raises:
        ValueError: not a number, negative, infinite, or a zero denominator.
    """

    __slots__ = ("fraction", "text")

    fraction: Fraction
    text: str

    def __init__(self, value: str | int | float | Fraction | Epsilon) -> None:
        text = value.text if isinstance(value, Epsilon) else str(value).strip()
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "fraction", self._parse(value, text))

    @staticmethod
    def _parse(value: object, text: str) -> Fraction:
        if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"epsilon {text!r} is not a finite number; write 8/255 or 0.03")
        if len(text) > 40:
            raise ValueError("epsilon is longer than 40 characters; write 8/255 or 0.03")
        exponent = re.search(r"e[+-]?(\d+)", text.lower())
        if exponent and int(exponent[1]) > 99:  # Fraction would write out all its digits
            raise ValueError(f"epsilon {text!r} has an exponent beyond 99; write 8/255 or 0.03")
        try:
            fraction = Fraction(text.replace(" ", ""))
        except ZeroDivisionError:
            raise ValueError(f"epsilon {text!r} divides by zero; write 8/255 or 0.03") from None
        except ValueError:
            raise ValueError(f"epsilon {text!r} is not a number; write 8/255 or 0.03") from None
        if fraction < 0:
            raise ValueError(f"epsilon {text!r} is negative; it is a radius, so zero or more")
        if fraction > 10**6:
            raise ValueError(f"epsilon {text!r} is larger than a million; pixels are in [0, 1]")
        return fraction

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("Epsilon is immutable")

    def __reduce__(self) -> tuple[type[Epsilon], tuple[str]]:
        return Epsilon, (self.text,)

    def __float__(self) -> float:
        return float(self.fraction)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Epsilon({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Epsilon) and self.fraction == other.fraction

    def __hash__(self) -> int:
        return hash(self.fraction)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        def validate(value: Any) -> Epsilon:
            if isinstance(value, Epsilon | str | int | float | Fraction):
                return cls(value)
            raise ValueError(f"epsilon must be a number such as 8/255, not {type(value).__name__}")

        def serialize(value: Epsilon, info: SerializationInfo) -> str:
            canonical = bool(info.context and info.context.get("canonical"))
            return str(value.fraction) if canonical else value.text

        return core_schema.no_info_plain_validator_function(
            validate,
            serialization=core_schema.plain_serializer_function_ser_schema(serialize, info_arg=True),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": ["string", "number"], "examples": ["8/255", 0.5]}


class ThreatModel(Frozen):
    """A ball around the clean image: what an attacker may do to an input with pixels in [0, 1].

    Threats of other kinds are in `schema.threats`.
    """

    norm: Norm = Norm.LINF
    """Norm of the perturbation ball."""
    epsilon: Epsilon
    """Radius of the ball, in [0, 1] pixel units."""
    targeted: bool = False
    """Whether success means reaching one given class instead of any wrong one."""
    access: Access = Access.WHITE_BOX
    """What the attacker sees of the model."""

    def __str__(self) -> str:
        return f"{self.norm.value}-{self.epsilon}"

    @property
    def only_clean(self) -> bool:
        """Whether nothing but the clean image is allowed."""
        return self.epsilon.fraction == 0


class Component(Frozen):
    """A registered thing by name, with its parameters."""

    name: str
    """Registered name, such as `erm`, `pgd` or `timm/resnet18`."""
    params: dict[str, JsonValue] = {}
    """Parameters; after resolution every one is present, defaults included."""


class Resources(Frozen):
    """What one cell may use of a machine; part of no key."""

    cpus: PositiveInt = 1
    """CPU threads; set explicitly in every executor, because the number of threads can change float sums."""
    gpus: NonNegativeFloat = 0.0
    """Accelerators, fractional allowed; a cell that has several is shared by as many processes."""
    ranks: PositiveInt | None = None
    """Processes that share one cell on one machine; by default one for each whole accelerator, and one on a CPU."""
    memory_gb: NonNegativeFloat = 2.0
    """Main memory."""

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        if self.ranks is None:  # it came later, and what a suite says must not change by it
            written.pop("ranks", None)
        return written
