"""Regression verdicts: pass, regressed, suspect, or inconclusive when the check could not have seen it.

Two questions can be asked. *Noise* (the default): did the candidate lose more than chance explains? It regressed if
McNemar's one-sided exact test on the same examples rejects, with Holm's correction over the cells of the check. It
passes only if the same test would have found a drop of `sensitivity` with the wanted power; otherwise it is
inconclusive, so a small number of examples buys no green tick. *Margin*: is the candidate at most `margin` worse? It
passes if the whole paired interval lies above `-margin`, regressed if it lies below, and is inconclusive across it.

A reason for doubt that the base did not have, such as masked gradients, makes a cell suspect: robust accuracy under an
attack is only an upper bound, so a rise may mean that the attack failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from robusteval.schema.types import Fraction01, Frozen, NonNegativeInt
from robusteval.scoring.evidence import Evidence, gather
from robusteval.scoring.outcomes import Outcomes
from robusteval.scoring.results import Difference
from robusteval.stats.paired import holm

Verdict = Literal["regressed", "suspect", "inconclusive", "pass"]
"""From worst to best."""
Unit = Literal["examples", "attack_seeds", "train_seeds"]
"""What the noise is of: the examples for these two models; the same with attack seeds averaged; training runs too."""

VERDICTS: tuple[Verdict, ...] = ("regressed", "suspect", "inconclusive", "pass")

_Decision = tuple[Verdict, str, int | None]
"""Verdict, reason, and how many examples would decide."""
_Open01 = Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]


class Rule(Frozen):
    """What counts as a regression."""

    margin: _Open01 | None = None
    """Largest drop that is still accepted, as a fraction; absent for noise mode."""
    sensitivity: _Open01 = 0.02
    """Drop that a check in noise mode must be able to see, as a fraction."""
    alpha: Annotated[float, Field(gt=0.0, lt=0.5, allow_inf_nan=False)] = 0.05
    """Share of false alarms over all cells of a check."""
    power: _Open01 = 0.8
    """Share of drops of `sensitivity` that the check must find."""
    unit: Unit = "examples"
    """Source of the noise."""


@dataclass(frozen=True)
class Measurement:
    """One side of one cell.

    Attributes:
        outcomes: per example and seed.
        flags: codes of the reasons for doubt that its records hold, those of severity `info` left out.
    """

    outcomes: Outcomes
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Pair:
    """A cell measured on both sides.

    Attributes:
        row: row of a table; empty if there is one model only.
        column: role of the cell, such as `r_id@0`.
        title: what a person reads.
        base: what is compared with.
        candidate: what is compared.
    """

    row: str
    column: str
    title: str
    base: Measurement
    candidate: Measurement


class CellVerdict(Frozen):
    """What the check says about one cell."""

    row: str
    """Row of the table; empty if the check is about one model."""
    column: str
    """Role of the cell."""
    title: str
    """What a person reads."""
    n: NonNegativeInt
    """Number of examples."""
    seeds: tuple[NonNegativeInt, NonNegativeInt]
    """Number of seeds of the base and of the candidate."""
    base: Fraction01
    """Accuracy of the base."""
    candidate: Fraction01
    """Accuracy of the candidate."""
    difference: Difference
    """Candidate minus base."""
    confidence: Fraction01
    """Coverage of the interval of the difference."""
    losses: NonNegativeInt
    """Examples that became wrong."""
    gains: NonNegativeInt
    """Examples that became right."""
    p: Fraction01
    """One-sided p-value against `no worse`."""
    p_holm: Fraction01
    """The same, adjusted for the number of cells."""
    detectable: Fraction01
    """Smallest drop that this cell shows with the wanted power, at the level that is left of `alpha` for one cell."""
    needed: NonNegativeInt | None = None
    """Examples with which the cell would be decided if all else stays as it is; absent if no number would do."""
    new_flags: tuple[str, ...] = ()
    """Reasons for doubt that the base did not have."""
    verdict: Verdict
    """What follows."""
    reason: str
    """Why, in one sentence."""


class ModelComparison(Frozen):
    """The verdict on a candidate, cell by cell."""

    base: str
    """What was compared with."""
    candidate: str
    """What was compared."""
    rule: Rule
    """What counts as a regression."""
    cells: tuple[CellVerdict, ...] = Field(min_length=1)
    """One a cell."""

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of any cell."""
        return min((cell.verdict for cell in self.cells), key=VERDICTS.index)

    def failed(self, *, strict: bool = False) -> bool:
        """Whether a check fails: regressed or suspect, and inconclusive if `strict`."""
        return self.verdict in ("regressed", "suspect") or (strict and self.verdict == "inconclusive")


def judge(base: str, candidate: str, pairs: Sequence[Pair], rule: Rule) -> ModelComparison:
    """Compare cell by cell, corrected over all of them.

    Args:
        base: name of what is compared with.
        candidate: name of what is compared.
        pairs: the cells, one or more.
        rule: what counts as a regression.

    Raises:
        UsageError: a pair was measured on different examples, or its sides share no seed although they must.
    """
    found = [gather(pair.title, pair.base.outcomes, pair.candidate.outcomes, rule.unit) for pair in pairs]
    adjusted = holm([evidence.p for evidence in found])
    cells = [
        _judge_cell(pair, evidence, p_holm, rule, len(pairs))
        for pair, evidence, p_holm in zip(pairs, found, adjusted, strict=True)
    ]
    return ModelComparison(base=base, candidate=candidate, rule=rule, cells=tuple(cells))


def _judge_cell(pair: Pair, evidence: Evidence, p_holm: float, rule: Rule, many: int) -> CellVerdict:
    fresh = tuple(sorted(pair.candidate.flags - pair.base.flags))
    level = rule.alpha / many
    confidence = 0.95 if rule.margin is None else 1.0 - 2.0 * rule.alpha
    if evidence.lacking is not None:
        decision: _Decision = ("inconclusive", evidence.lacking, None)
    elif rule.margin is None:
        decision = _by_noise(evidence, p_holm, rule, level)
    else:
        decision = _by_margin(evidence, rule.margin, rule.alpha, level)
    verdict, reason, needed = decision
    if fresh and verdict != "regressed":
        rise = f"accuracy rose by {_points(evidence.value)} together with " if evidence.value > 0 else ""
        verdict, reason = "suspect", f"{rise}{', '.join(fresh)}, which the base does not show"
    low, high = evidence.interval(confidence)
    return CellVerdict(
        row=pair.row,
        column=pair.column,
        title=pair.title,
        n=evidence.n,
        seeds=evidence.seeds,
        base=evidence.base,
        candidate=evidence.candidate,
        difference=Difference(value=evidence.value, low=low, high=high, n=evidence.n, interval=evidence.method),
        confidence=confidence,
        losses=evidence.losses,
        gains=evidence.gains,
        p=evidence.p,
        p_holm=p_holm,
        detectable=evidence.detectable(level, rule.power),
        needed=needed,
        new_flags=fresh,
        verdict=verdict,
        reason=reason,
    )


def _by_noise(evidence: Evidence, p_holm: float, rule: Rule, level: float) -> _Decision:
    if p_holm < rule.alpha:
        return "regressed", f"{evidence.losses} losses against {evidence.gains} gains, p = {p_holm:.2g}", None
    visible = _points(rule.sensitivity)
    if evidence.sees(rule.sensitivity, level, rule.power):
        return "pass", f"a drop of {visible} would have been seen", None
    needed = evidence.needed(rule.sensitivity, level, rule.power)
    words = f"{needed} examples would decide" if needed is not None else "more examples or seeds would"
    return "inconclusive", f"a drop of {visible} would not have been seen; {words}", needed


def _by_margin(evidence: Evidence, margin: float, alpha: float, level: float) -> _Decision:
    # All cells above the margin needs no correction (intersection-union); any cell below it does.
    low, _ = evidence.interval(1.0 - 2.0 * alpha)
    _, high = evidence.interval(1.0 - 2.0 * level)
    allowed = _points(margin)
    if low > -margin:
        return "pass", f"at most {_points(max(0.0, -low))} worse, {allowed} are allowed", None
    if high < -margin:
        return "regressed", f"at least {_points(-high)} worse, {allowed} are allowed", None
    needed = _needed_for_margin(evidence, margin, low, high)
    words = f"; about {needed} examples would decide" if needed is not None else ""
    return "inconclusive", f"between {_points(high)} and {_points(low)}, across -{allowed}{words}", needed


def _needed_for_margin(evidence: Evidence, margin: float, low: float, high: float) -> int | None:
    """Examples with which an interval around the same difference would clear the margin; widths shrink as 1/sqrt(n)."""
    distance = evidence.value + margin
    end = low if distance > 0.0 else high
    if abs(distance) < 1e-4 or evidence.repeated is not None:
        return None
    return round(evidence.n * ((evidence.value - end) / distance) ** 2) + 1


def _points(value: float) -> str:
    return f"{100 * value:.4g} points"
