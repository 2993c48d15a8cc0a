"""Where the spread of an accuracy comes from."""

from __future__ import annotations

from robusteval.schema.types import Frozen, NonNegativeFloat, NonNegativeInt


class Spread(Frozen):
    """Where the spread of an accuracy over splits and seeds comes from, as standard deviations."""

    splits: NonNegativeInt
    """Held-out or shifted domains, each with a value for every seed."""
    seeds: NonNegativeInt
    """Training seeds."""
    split_sd: NonNegativeFloat
    """Between domains."""
    seed_sd: NonNegativeFloat
    """Between training seeds, common to all domains."""
    rest_sd: NonNegativeFloat
    """What neither explains: seeds that matter to one domain alone, and the examples that were drawn."""
