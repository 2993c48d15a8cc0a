"""What two sets of outcomes on the same examples say about each other, before any verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robusteval.schema.errors import UsageError
from robusteval.scoring.compare import domain_weights, group_sums
from robusteval.scoring.outcomes import Outcomes
from robusteval.stats.hierarchical import RepeatedDifference, repeated_difference
from robusteval.stats.paired import sign_flip_test
from robusteval.stats.power import detectable_drop, examples_needed, mcnemar_power
from robusteval.stats.score_interval import paired_score_interval

FEWEST_SEEDS = 3
"""Training seeds a side below which nothing can be said about a method."""
_CLEARLY_BETTER = 0.05


@dataclass(frozen=True)
class Evidence:
    """The paired comparison of one cell.

    Attributes:
        before: outcomes of the base.
        now: outcomes of the candidate.
        losses: examples that became wrong.
        gains: examples that became right.
        p: one-sided p-value against `no worse`.
        independent: independent examples that the test rests on, at most n.
        churn: share of them that changed sides.
        noise: share that would change sides without a drop: `churn`, or twice the losses where the candidate is
            better, because an improvement is no noise.
        repeated: the comparison over seeds, where the unit is not the example.
        lacking: why nothing can be decided, or None.
    """

    before: Outcomes
    now: Outcomes
    losses: int
    gains: int
    p: float
    independent: int
    churn: float
    noise: float
    repeated: RepeatedDifference | None = None
    lacking: str | None = None

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.before.domains)

    @property
    def seeds(self) -> tuple[int, int]:
        """Number of seeds of base and candidate."""
        return len(self.before.seeds), len(self.now.seeds)

    @property
    def base(self) -> float:
        """Accuracy of the base."""
        return self.before.mean().value

    @property
    def candidate(self) -> float:
        """Accuracy of the candidate."""
        return self.now.mean().value

    @property
    def value(self) -> float:
        """Candidate minus base."""
        return self.candidate - self.base

    @property
    def method(self) -> str:
        """How the interval is computed."""
        return "tango-score" if self.repeated is None else "bootstrap-t"

    def interval(self, confidence: float) -> tuple[float, float]:
        """Interval of the difference with that coverage."""
        if self.repeated is not None:
            return self.repeated.interval(confidence)
        return paired_score_interval(self.value, self.churn, self.independent, confidence)

    def sees(self, drop: float, alpha: float, power: float) -> bool:
        """Whether a drop of that size would have been found."""
        enough = mcnemar_power(self.independent, drop, self.noise, alpha) >= power
        return enough and (self.repeated is None or self.repeated.detectable(alpha, power) <= drop)

    def detectable(self, alpha: float, power: float) -> float:
        """Smallest drop that would have been found."""
        found = detectable_drop(self.independent, self.noise, alpha, power)
        return found if self.repeated is None else max(found, self.repeated.detectable(alpha, power))

    def needed(self, drop: float, alpha: float, power: float) -> int | None:
        """Examples with which a drop of that size is found; None where more examples alone may not do."""
        if self.repeated is not None and len(self.before.seeds) + len(self.now.seeds) > 2:
            return None
        found = examples_needed(drop, self.noise, alpha, power)
        return None if found is None else max(self.n + 1, round(found * self.n / max(1, self.independent)))


def gather(title: str, base: Outcomes, candidate: Outcomes, unit: str) -> Evidence:
    """Compare the outcomes of one cell.

    Args:
        title: what is compared, for messages.
        base: outcomes of the base.
        candidate: outcomes of the candidate.
        unit: `examples`, `attack_seeds` or `train_seeds`; with the first two, the seeds that both have are averaged.

    Raises:
        UsageError: the two were measured on different examples, or share no seed although they must.
    """
    if base.ids_digest != candidate.ids_digest or base.domains != candidate.domains:
        raise UsageError(f"{title}: base and candidate were measured on different examples; measure both on one suite")
    if unit == "train_seeds":
        return _over_training(base, candidate)
    seeds = [seed for seed in base.seeds if seed in candidate.seeds]
    before, now = base.of_seeds(seeds), candidate.of_seeds(seeds)
    if before is None or now is None:
        raise UsageError(
            f"{title}: base has seeds {list(base.seeds)}, candidate {list(candidate.seeds)}; measure both with the same"
        )
    change = now.right.sum(axis=0, dtype=np.int64) - before.right.sum(axis=0, dtype=np.int64)
    weighted = change * domain_weights(now)
    nets = group_sums(weighted, now)
    independent, churn = _spread(weighted, nets, now)
    better = sign_flip_test([int(net) for net in nets], "better") < _CLEARLY_BETTER
    found = Evidence(
        before=before,
        now=now,
        losses=int(np.count_nonzero(change < 0)),
        gains=int(np.count_nonzero(change > 0)),
        p=sign_flip_test([int(net) for net in nets], "worse"),
        independent=independent,
        churn=churn,
        noise=min(churn, 2.0 * _share(weighted * (weighted < 0), now)) if better else churn,
    )
    if unit == "examples":
        return found
    repeated = _bootstrap(before, now, draw=False)
    return _with_seeds(found, repeated, None)


def _over_training(base: Outcomes, candidate: Outcomes) -> Evidence:
    """Seeds are a sample of training runs: nothing is paired but the examples."""
    mean = [side.right.mean(axis=0) for side in (base, candidate)]
    losses, gains = int(np.count_nonzero(mean[1] < mean[0])), int(np.count_nonzero(mean[1] > mean[0]))
    churn = float(np.mean((mean[1] - mean[0]) ** 2))
    found = Evidence(base, candidate, losses, gains, 1.0, len(set(base.groups)), churn, churn)
    fewest = min(len(base.seeds), len(candidate.seeds))
    if fewest < FEWEST_SEEDS:
        words = f"{fewest} training seed{'s' if fewest > 1 else ''}: at least {FEWEST_SEEDS} a side show what noise is"
        repeated = None if fewest < 2 else _bootstrap(base, candidate, draw=True)
        return _with_seeds(found, repeated, words)
    return _with_seeds(found, _bootstrap(base, candidate, draw=True), None)


def _with_seeds(found: Evidence, repeated: RepeatedDifference | None, lacking: str | None) -> Evidence:
    p = 1.0 if lacking is not None or repeated is None else repeated.p_worse()
    return replace(found, p=p, repeated=repeated, lacking=lacking)


def _bootstrap(before: Outcomes, now: Outcomes, *, draw: bool) -> RepeatedDifference:
    return repeated_difference(before.right, now.right, now.groups, domain_weights(now), draw_repetitions=draw)


def _spread(weighted: NDArray[np.int64], nets: NDArray[np.int64], outcomes: Outcomes) -> tuple[int, float]:
    """Independent examples behind the test, and the share of them that changed sides.

    The design effect is the variance of the tested sum over that with independent examples, both under no difference.
    Where nothing changed no correlation can be seen, and each group counts as one example.
    """
    squares = float(np.sum(weighted.astype(np.float64) ** 2))
    if squares == 0.0:
        return len(set(outcomes.groups)), 0.0
    effect = max(1.0, float(np.sum(nets.astype(np.float64) ** 2)) / squares)
    return max(1, int(weighted.size / effect)), min(1.0, _share(weighted, outcomes))


def _share(weighted: NDArray[np.int64], outcomes: Outcomes) -> float:
    """Share of equally weighted single-seed examples with the same variance of the mean change."""
    whole = float(domain_weights(outcomes).sum()) * len(outcomes.seeds)
    return float(weighted.size * np.sum(weighted.astype(np.float64) ** 2)) / whole**2
