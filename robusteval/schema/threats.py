"""Threat models of every kind: balls around the clean image, and families of transformed images.

Which kind a threat is, its `norm` says: `linf`, `l2` and `l1` are balls (`ThreatModel`), `spatial` and `recolour` are
families that no ball describes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from robusteval.schema.types import Access, Epsilon, Fraction01, Frozen, PositiveInt, ThreatModel

Degrees = Annotated[float, Field(ge=0.0, le=180.0, allow_inf_nan=False, strict=True)]
GridSize = Annotated[PositiveInt, Field(ge=2, le=64)]

DEFAULT_GRID = 8
"""Nodes a colour channel of a recolouring, unless a suite says otherwise."""


class ThreatKind(StrEnum):
    """What a threat model limits: the norm of a perturbation, or a transformation."""

    LINF = "linf"
    L2 = "l2"
    L1 = "l1"
    SPATIAL = "spatial"
    RECOLOUR = "recolour"


class SpatialThreat(Frozen):
    """Rotations about the centre and translations (Engstrom et al., ICML 2019, arXiv 1712.02779).

    What comes in at the border is black.
    """

    norm: Literal["spatial"] = "spatial"
    """Kind of the threat model."""
    rotation: Degrees
    """Largest rotation in degrees, either way, at most 180."""
    translation: Fraction01
    """Largest translation either way, as a share of the height and of the width."""
    targeted: bool = False
    """Whether success means reaching one given class instead of any wrong one."""
    access: Access = Access.WHITE_BOX
    """What the attacker sees of the model."""

    def __str__(self) -> str:
        return f"spatial-{self.rotation:g}deg-{self.translation:g}"

    @property
    def only_clean(self) -> bool:
        """Whether nothing but the clean image is allowed."""
        return self.rotation == 0 and self.translation == 0


class RecolourThreat(Frozen):
    """One map of colours to colours for each image (the functional threat of Laidlaw and Feizi, NeurIPS 2019).

    The map is given by its displacements at the nodes of a regular grid over the colour cube [0, 1]^C and is linear in
    each channel between them, so pixels of one colour stay of one colour, and similar ones similar.
    """

    norm: Literal["recolour"] = "recolour"
    """Kind of the threat model."""
    epsilon: Epsilon
    """Largest displacement of a node in any channel, on the [0, 1] scale; no pixel moves further."""
    grid: GridSize = DEFAULT_GRID
    """Nodes a channel, 2 to 64; fewer make smoother maps."""
    targeted: bool = False
    """Whether success means reaching one given class instead of any wrong one."""
    access: Access = Access.WHITE_BOX
    """What the attacker sees of the model."""

    def __str__(self) -> str:
        finer = "" if self.grid == DEFAULT_GRID else f"-grid{self.grid}"
        return f"recolour-{self.epsilon}{finer}"

    @property
    def only_clean(self) -> bool:
        """Whether nothing but the clean image is allowed."""
        return self.epsilon.fraction == 0

    @model_validator(mode="after")
    def _stays_in_the_box(self) -> Self:
        if self.epsilon.fraction > 1:
            raise ValueError(f"epsilon {self.epsilon} moves colours out of [0, 1]; write at most 1")
        return self


def _kind(value: Any) -> str:
    norm = value.get("norm") if isinstance(value, dict) else getattr(value, "norm", None)
    return norm if norm in ("spatial", "recolour") else "ball"


Threat = Annotated[
    Annotated[ThreatModel, Tag("ball")]
    | Annotated[SpatialThreat, Tag("spatial")]
    | Annotated[RecolourThreat, Tag("recolour")],
    Discriminator(_kind),
]
"""A threat model of any kind; without a `norm` it is an linf ball."""


def make_threat(
    kind: ThreatKind,
    *,
    epsilon: Epsilon | None = None,
    rotation: float | None = None,
    translation: float | None = None,
    grid: int | None = None,
) -> Threat:
    """The threat model that a suite writes with these keys.

    Raises:
        ValueError: a limit that the kind needs is missing, one that it has no use for is given, or a limit is out of
            range.
    """
    given = {"epsilon": epsilon, "rotation": rotation, "translation": translation, "grid": grid}
    limits = {name: value for name, value in given.items() if value is not None}
    takes = {ThreatKind.SPATIAL: ("rotation", "translation"), ThreatKind.RECOLOUR: ("epsilon", "grid")}
    valid = takes.get(kind, ("epsilon",))
    for name in limits:
        if name not in valid:
            raise ValueError(f"norm {kind.value} has no {name!r}; its limits are {' and '.join(map(repr, valid))}")
    if kind is ThreatKind.SPATIAL:
        if not limits:
            raise ValueError("norm spatial needs 'rotation' in degrees, 'translation' as a share of the size, or both")
        return SpatialThreat(rotation=rotation or 0.0, translation=translation or 0.0)
    if epsilon is None:
        raise ValueError(f"norm {kind.value} needs 'epsilon', such as 8/255")
    if kind is ThreatKind.RECOLOUR:
        return RecolourThreat(epsilon=epsilon, grid=grid or DEFAULT_GRID)
    return ThreatModel.model_validate({"norm": kind.value, "epsilon": epsilon})


def read_threat(text: str) -> Threat:
    """The threat model of a name, as `str` writes it: `linf-8/255`, `spatial-30deg-0.1`, `recolour-0.06`.

    The first `-` may be a `:`.

    Raises:
        ValueError: it is no such name, or a limit is out of range.
    """
    norm, _, limits = text.strip().replace(":", "-", 1).partition("-")
    kind = ThreatKind(norm.strip().lower())
    if kind is ThreatKind.SPATIAL:
        rotation, degrees, translation = limits.partition("deg")
        if not degrees:
            raise ValueError(f"threat {text!r} has no rotation; write spatial-30deg-0.1")
        return make_threat(kind, rotation=float(rotation), translation=float(translation.removeprefix("-") or 0))
    if kind is ThreatKind.RECOLOUR:
        epsilon, finer, grid = limits.partition("-grid")
        return make_threat(kind, epsilon=Epsilon(epsilon), grid=int(grid) if finer else None)
    return make_threat(kind, epsilon=Epsilon(limits))
