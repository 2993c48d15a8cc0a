"""Families of transformed images, each described by parameters: rotations with translations, and colour maps.

The image is always rendered here, from the clean image and clipped parameters. So whatever parameters an attack
proposes, the result belongs to the threat model. Parameters are in units of the threat's limits, [-1, 1] each; zero
parameters give back the clean image bit for bit. Everything works on each example by itself, in float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from robusteval.attacks.geometry import project_box
from robusteval.attacks.interpolation import interpolate
from robusteval.schema.errors import UsageError
from robusteval.schema.threats import RecolourThreat, SpatialThreat, Threat

SNAP = 2.0**20
"""Source coordinates are rounded to this fraction of a pixel, so that right angles are exact and devices whose cosine
differs in its last bit still render the same image."""
LARGEST_CUBE = 3
"""Most channels of a colour map: its grid has one axis a channel."""


class Transform(ABC):
    """A family of images around each clean one."""

    @abstractmethod
    def shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the parameters of one example, from (C, H, W).

        Raises:
            UsageError: the family has no such images.
        """

    @abstractmethod
    def render(self, clean: Tensor, parameters: Tensor) -> Tensor:
        """Transformed images.

        Args:
            clean: (B, C, H, W) float32 in [0, 1].
            parameters: (B, *shape) in [-1, 1].

        Returns:
            (B, C, H, W) float32 in [0, 1], differentiable in the parameters.
        """

    def clip(self, parameters: Tensor) -> Tensor:
        """Nearest allowed parameters, in float64."""
        return parameters.double().clamp(-1.0, 1.0)


@dataclass(frozen=True)
class Spatial(Transform):
    """Rotation about the centre, counter-clockwise, then translation; bilinear, black outside the image.

    The parameters are (angle, down, right) in shares of the largest rotation, of the largest translation times the
    height, and of the largest translation times the width. Pixels stay square: an oblong image is not sheared.
    """

    rotation: float
    """Largest rotation in degrees."""
    translation: float
    """Largest translation as a share of height and width."""

    def shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """See `Transform.shape`."""
        return (3,)

    def render(self, clean: Tensor, parameters: Tensor) -> Tensor:
        """See `Transform.render`."""
        count, channels, height, width = clean.shape
        shares = parameters.double()
        limits = shares.new_tensor([self.rotation, self.translation * height, self.translation * width])
        angle, down, right = (shares * limits)[:, :, None].unbind(1)
        turn = torch.deg2rad(angle)
        rows = torch.arange(height, dtype=torch.float64, device=clean.device) - (height - 1) / 2
        columns = torch.arange(width, dtype=torch.float64, device=clean.device) - (width - 1) / 2
        row, column = rows.repeat_interleave(width) - down, columns.repeat(height) - right
        from_row = turn.sin() * column + turn.cos() * row + (height - 1) / 2
        from_column = turn.cos() * column - turn.sin() * row + (width - 1) / 2
        places = _snapped(torch.stack([from_row, from_column], dim=1))
        rendered: Tensor = interpolate(clean.double(), places).view(count, channels, height, width)
        return project_box(rendered.float())


@dataclass(frozen=True)
class Recolouring(Transform):
    """One map of colours for each image: each colour is displaced by the interpolated displacements of its cell.

    The parameters are the displacements of the nodes, (C, grid, ..., grid) with one axis a channel, in shares of the
    largest displacement.
    """

    epsilon: float
    """Largest displacement of a node in a channel."""
    grid: int
    """Nodes along each channel."""

    def shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """See `Transform.shape`."""
        channels = image_shape[0]
        if channels > LARGEST_CUBE:
            raise UsageError(f"recolouring is for images of at most {LARGEST_CUBE} channels, these have {channels}")
        return (channels,) + (self.grid,) * channels

    def render(self, clean: Tensor, parameters: Tensor) -> Tensor:
        """See `Transform.render`."""
        colours = clean.double().flatten(2)
        displacement = interpolate(parameters.double() * self.epsilon, colours * (self.grid - 1))
        return project_box((colours + displacement).float().view_as(clean))


def transform_of(threat: Threat) -> Transform:
    """The family that a threat model allows.

    Raises:
        UsageError: the threat model is a ball.
    """
    if isinstance(threat, SpatialThreat):
        return Spatial(threat.rotation, threat.translation)
    if isinstance(threat, RecolourThreat):
        return Recolouring(float(threat.epsilon), threat.grid)
    raise UsageError(f"threat {threat} is a ball of perturbations, not a family of transformed images")


def _snapped(places: Tensor) -> Tensor:
    """Coordinates rounded to a fraction of a pixel, with the gradient of the unrounded ones."""
    rounded = (places.detach() * SNAP).round() / SNAP
    return places + (rounded - places.detach())
