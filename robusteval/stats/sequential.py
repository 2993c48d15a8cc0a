"""Deciding early whether a share of a finite population reaches a threshold.

Members are looked at in random order, without replacement, and after certain numbers of them the exact limits of the
whole population's share are compared with the threshold. The probability of a wrong decision is divided evenly over the
looks (Bonferroni), so the decision may be taken at the first look that allows it.
"""

from __future__ import annotations

import math
from typing import Literal

from robusteval.stats.finite import upper_count

Decision = Literal["reached", "missed"]


def looks(population: int, first: int = 32, growth: float = 1.5) -> tuple[int, ...]:
    """Numbers of members after which to look: each the last one times `growth`, the last one everything.

    Raises:
        ValueError: no population, or numbers that do not grow.
    """
    if population < 1 or first < 1 or growth <= 1.0:
        raise ValueError(f"no looks at {population} members, the first after {first}, growing by {growth}")
    found, seen = [], first
    while seen < population:
        found.append(seen)
        seen = max(seen + 1, round(seen * growth))
    return (*found, population)


def limits(marked: int, seen: int, population: int, confidence: float) -> tuple[int, int]:
    """Smallest and largest number of marked members of the population, each with this one-sided confidence.

    Args:
        marked: marked members among those seen.
        seen: members looked at.
        population: all members.
        confidence: confidence of each limit.
    """
    unmarked = upper_count(seen - marked, seen, population, confidence)
    return population - unmarked, upper_count(marked, seen, population, confidence)


def decided(
    marked: int, seen: int, population: int, threshold: float, *, confidence: float, at_most: int
) -> Decision | None:
    """Whether the share of marked members is known to reach `threshold`, or to miss it; None if neither is known.

    Args:
        marked: marked members among those seen.
        seen: members looked at.
        population: all members.
        threshold: share that is asked about, in [0, 1].
        confidence: probability that a decision is right, over all looks together, at least.
        at_most: number of looks that are planned.
    """
    needed = math.ceil(threshold * population - 1e-9)
    least, most = limits(marked, seen, population, 1.0 - (1.0 - confidence) / at_most)
    if least >= needed:
        return "reached"
    return "missed" if most < needed else None
