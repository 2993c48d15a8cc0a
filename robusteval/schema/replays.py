"""What became of saved adversarial images that were verified again."""

from __future__ import annotations

from robusteval.schema.types import Digest, Frozen, NonNegativeFloat, NonNegativeInt


class ReplayFailure(Frozen):
    """One example whose adversarial image was not verified."""

    example: str
    """Its id."""
    reason: str
    """Why, with numbers."""


class Replay(Frozen):
    """The verification of all images of one record."""

    cell_key: Digest
    """Key of the cell."""
    saved: NonNegativeInt
    """Examples with a saved image."""
    rounded: NonNegativeInt
    """How many of the images are saved on the grid of 255 levels."""
    verified: NonNegativeInt
    """Examples whose image lies in the box and the ball and is misclassified."""
    failures: tuple[ReplayFailure, ...]
    """The others, and broken examples without an image, in the order of the slice."""
    threat: str
    """The ball."""
    tolerance: NonNegativeFloat
    """Distance beyond the radius that counts as rounding."""
    device: str
    """Where the model ran."""
