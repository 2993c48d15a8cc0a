"""What a sample without replacement says about the rest of a finite population."""

from __future__ import annotations

import math


def upper_count(found: int, drawn: int, population: int, confidence: float = 0.95) -> int:
    """Exact one-sided upper limit of the marked members of a population, from a simple random sample of it.

    The largest number K of marked members for which `found` or fewer would be drawn with a probability above
    `1 - confidence` (hypergeometric; Buonaccorsi, The American Statistician 1987). It is never above what the binomial
    limit of Clopper and Pearson gives; with nothing found in a sample that is a small part of the population, it is
    near the rule of three, `3 * population / drawn`.

    Args:
        found: marked members in the sample.
        drawn: size of the sample.
        population: size of the population.
        confidence: probability with which the limit holds, at least.

    Returns:
        A count in `[found, population - drawn + found]`.

    Raises:
        ValueError: the counts do not fit each other, or the confidence is no probability.
    """
    if not 0 <= found <= drawn <= population:
        raise ValueError(f"{found} found in a sample of {drawn} from {population} is impossible")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    low, high = found, population - drawn + found
    while low < high:
        middle = (low + high + 1) // 2
        if _at_most(found, drawn, middle, population) > 1.0 - confidence:
            low = middle
        else:
            high = middle - 1
    return low


def _at_most(found: int, drawn: int, marked: int, population: int) -> float:
    """Probability of at most `found` marked members in the sample."""
    whole = _log_choose(population, drawn)
    terms = (
        _log_choose(marked, count) + _log_choose(population - marked, drawn - count) - whole
        for count in range(max(0, drawn - population + marked), min(found, marked) + 1)
    )
    return math.fsum(math.exp(term) for term in terms)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
