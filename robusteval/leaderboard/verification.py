"""Whether a sample of an entry's outcomes, measured again, fits what the entry says. No torch.

Two machines round differently, so a few outcomes near a decision boundary differ between honest runs. An entry is
consistent if the differences that were seen are no more than such noise explains, and no saved image breaks a rule.
"""

from __future__ import annotations

from typing import Literal

from scipy.stats import binom

from robusteval.schema.replays import Replay
from robusteval.schema.types import Frozen, Name, NonNegativeInt
from robusteval.stats.intervals import clopper_pearson

NOISE = 0.005
"""Share of outcomes that may differ between honest runs on different machines."""
LEVEL = 0.01
"""An entry is inconsistent if so many differences are less probable than this under `NOISE`."""
LIE = 0.05
"""Share of false outcomes for which the chance of being found out is stated."""
STANDS = "the model classifies it rightly"
"""Begins the reason of an image that keeps every rule and no longer fools the model, which rounding can explain."""


class CellCheck(Frozen):
    """One record of an entry, measured again in part."""

    role: str
    """Role of the record, such as `r_id@0`."""
    seed: NonNegativeInt
    """Training seed of its row."""
    fold: str = ""
    """Its fold, in a suite with folds."""
    cell_key: str
    """Key of its cell."""
    examples: NonNegativeInt
    """Examples of the record."""
    rerun: tuple[str, ...]
    """Ids of the examples that were measured again."""
    outcomes: NonNegativeInt
    """Outcomes that were compared, `clean` and `robust` of each example."""
    overclaimed: tuple[str, ...] = ()
    """Ids of examples that the entry counts as right or robust, and the new run does not."""
    underclaimed: tuple[str, ...] = ()
    """Ids of examples for which it is the other way round."""
    replay: Replay | None = None
    """What became of the saved adversarial images; absent if there are none."""
    notes: tuple[str, ...] = ()
    """What was not looked at, and why."""

    @property
    def where(self) -> str:
        """Role, seed and fold in words."""
        return f"{self.role}, seed {self.seed}" + (f" [{self.fold}]" if self.fold else "")


class Verification(Frozen):
    """The verdict about an entry."""

    entry: Name
    """Id of the entry."""
    verdict: Literal["consistent", "inconsistent"]
    """Whether the sample fits the entry."""
    compared: NonNegativeInt
    """Outcomes and images that were compared."""
    differing: NonNegativeInt
    """How many differ."""
    probability: float
    """Chance of at least so many differences if the entry is honest, at the largest noise that is allowed for."""
    false_at_most: float
    """Share of the entry's outcomes that do not hold, at most, with 95 % confidence."""
    power: float
    """Chance that an entry with 5 % false outcomes would have been called inconsistent."""
    broken_rules: tuple[str, ...]
    """Saved images outside the box or the ball, missing, or about other examples; one such is enough."""
    draw: NonNegativeInt
    """Seed of the random sample."""
    cells: tuple[CellCheck, ...]
    """Each record."""


def judge(entry_id: str, draw: int, cells: tuple[CellCheck, ...]) -> Verification:
    """Sum up what was found about the records of an entry.

    Args:
        entry_id: id of the entry.
        draw: seed of the sample.
        cells: its records.
    """
    compared = differing = 0
    broken: list[str] = []
    for cell in cells:
        compared += cell.outcomes
        differing += len(cell.overclaimed) + len(cell.underclaimed)
        if cell.replay is not None:
            compared += cell.replay.saved
            soft = [failure for failure in cell.replay.failures if failure.reason.startswith(STANDS)]
            differing += len(soft)
            hard = [failure for failure in cell.replay.failures if failure not in soft]
            broken += [f"{cell.where}, {failure.example}: {failure.reason}" for failure in hard]
    probability = float(binom.sf(differing - 1, compared, NOISE))
    fewest = int(binom.isf(LEVEL, compared, NOISE)) + 1
    consistent = compared > 0 and not broken and probability >= LEVEL
    return Verification(
        entry=entry_id,
        verdict="consistent" if consistent else "inconsistent",
        compared=compared,
        differing=differing,
        probability=probability,
        # One-sided 95 % is the upper end of a two-sided 90 %.
        false_at_most=clopper_pearson(differing, compared, 0.9)[1] if compared else 1.0,
        power=float(binom.sf(fewest - 1, compared, LIE)),
        broken_rules=tuple(broken),
        draw=draw,
        cells=cells,
    )
