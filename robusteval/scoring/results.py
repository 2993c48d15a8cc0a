"""What a scored suite is: the 2 x 2 per method with intervals, gaps, costs, and what is missing."""

from __future__ import annotations

from typing import Literal

from robusteval.schema.plans import ProtocolUse
from robusteval.schema.specs import Cell
from robusteval.schema.types import Digest, Fraction01, Frozen, NonNegativeFloat, NonNegativeInt
from robusteval.scoring.spread import Spread

Side = Literal["id", "ood"]
"""Half of the table."""


class Estimate(Frozen):
    """One accuracy: mean over seeds of the mean over domains, with both intervals."""

    value: Fraction01
    """Mean over training seeds."""
    low: Fraction01
    """Lower end of the 95 % interval over examples."""
    high: Fraction01
    """Upper end of the 95 % interval over examples."""
    n: NonNegativeInt
    """Number of distinct examples."""
    n_effective: NonNegativeFloat
    """Independent examples that would give the same variance."""
    interval: str
    """How the interval over examples was computed: `wilson` or `wilson-clustered`."""
    seeds: dict[int, float]
    """Training seed to the value it gave."""
    seed_low: Fraction01 | None = None
    """Lower end of the 95 % interval over seeds; absent with one seed."""
    seed_high: Fraction01 | None = None
    """Upper end of the 95 % interval over seeds."""
    seed_half_width: NonNegativeFloat | None = None
    """Half width of the interval over seeds before it was cut to [0, 1]."""
    seed_interval: str | None = None
    """How the interval over seeds was computed: `student-t`."""


class Difference(Frozen):
    """A difference of accuracies with its interval over examples."""

    value: float
    """First minus second."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    n: NonNegativeInt
    """Number of examples; of the smaller sample if two are compared."""
    interval: str = "newcombe"
    """How the interval was computed: `newcombe`, square-and-add of Wilson intervals with the correlation of the two
    means; of a ratio `mover`, from the same limits; `linear-clustered`, from the variance of a weighted sum."""


class Gaps(Frozen):
    """What shift and attack cost; absent where a side was not measured."""

    g_clean: Difference | None = None
    """A_id - A_ood."""
    g_adv: Difference | None = None
    """R_id - R_ood."""
    b_id: Difference | None = None
    """A_id - R_id on the attacked examples: right when clean, broken by the attack."""
    b_ood: Difference | None = None
    """A_ood - R_ood on the attacked examples."""
    retention: Difference | None = None
    """A_ood / A_id: what the shift leaves of clean accuracy."""
    retention_adv: Difference | None = None
    """R_ood / R_id: what the shift leaves of robust accuracy."""
    interaction: Difference | None = None
    """b_id - b_ood: how much less the attack costs under shift."""


class ThreatScore(Frozen):
    """Robust accuracy under a further threat model, or under several at once."""

    r_id: Estimate | None = None
    """In distribution."""
    r_ood: Estimate | None = None
    """Out of distribution."""
    b_id: Difference | None = None
    """Accuracy that the attack costs in distribution."""
    b_ood: Difference | None = None
    """Accuracy that the attack costs out of distribution."""


class DomainScore(Frozen):
    """One domain; robust accuracy is that under the first threat."""

    domain: str
    """Name."""
    side: Side
    """Half of the table."""
    clean: Estimate | None = None
    """Clean accuracy."""
    robust: Estimate | None = None
    """Robust accuracy."""
    ece: Fraction01 | None = None
    """Calibration error with 15 bins on clean images, mean over seeds; older records have none."""


class Worst(Frozen):
    """The domain with the lowest accuracy in one column; being a minimum it is biased low in small domains."""

    domain: str
    """Name; the first one if several tie."""
    value: Fraction01
    """Accuracy there."""
    low: Fraction01
    """Lower end of its interval."""
    high: Fraction01
    """Upper end of its interval."""
    simultaneous_low: Fraction01 | None = None
    """95 % bound from below whichever domain is worst: the least one-sided bound, each at 5 % / number of domains."""


class Comparison(Frozen):
    """Two models on the same examples."""

    base: str
    """What is compared with."""
    candidate: str
    """What is compared."""
    column: str
    """Which outcome: a column of the table, or the name of an outcome in the records."""
    n: NonNegativeInt
    """Number of common examples."""
    seeds: tuple[int, ...] = ()
    """Training seeds that were averaged."""
    losses: NonNegativeInt
    """Examples that the base gets right more often (over seeds) than the candidate."""
    gains: NonNegativeInt
    """Examples that the candidate gets right more often than the base."""
    difference: Difference
    """Candidate minus base."""
    p: Fraction01
    """Two-sided exact p-value over examples (McNemar; sign flips of whole groups where examples are grouped)."""
    p_holm: Fraction01
    """The same adjusted over all comparisons that were made together."""
    detectable: Fraction01
    """Smallest drop that n examples with this much disagreement show with 80 % power, one-sided 5 %."""
    verdict: Literal["better", "worse", "not separable"]
    """What `p_holm < 0.05` says about these trained models; nothing about other seeds."""


class Missing(Frozen):
    """A cell without a usable result."""

    seed: NonNegativeInt
    """Training seed."""
    fold: str = ""
    """Domain that is apart, in a suite with folds."""
    role: str
    """Role of the cell in the row, or `train`."""
    cell: Digest
    """Key of the cell."""
    state: Literal["not run", "failed", "cancelled"]
    """Why there is no result."""
    reason: str = ""
    """Error of a failed cell."""


class SelectionAudit(Frozen):
    """What the choice of weights within one run is worth on the shifted half; it never ranks."""

    rule: Literal["last", "training-domain"]
    """The rule that the row does not follow."""
    a_ood: Estimate
    """Clean accuracy under shift of the weights that it would have kept."""
    oracle_premium: NonNegativeFloat
    """Accuracy gained by choosing between the stored weights of each seed on the shifted data itself."""


class CorruptionErrors(Frozen):
    """Errors over the 15 common corruptions, severities averaged first; smaller is better."""

    severities: tuple[int, ...]
    """Severities behind them."""
    raw: Difference
    """Mean corruption error, unnormalised."""
    alexnet: Difference | None = None
    """mCE: each corruption's error divided by AlexNet's; ImageNet at all five severities only."""
    relative: Difference | None = None
    """Relative mCE: what each corruption adds to the clean error, divided by what it adds to AlexNet's."""


class MethodScore(Frozen):
    """One row of the table."""

    method: str
    """Name of the row."""
    recipe: str
    """Registered method behind it."""
    a_id: Estimate | None = None
    """Clean accuracy, in distribution."""
    r_id: Estimate | None = None
    """Robust accuracy, in distribution."""
    a_ood: Estimate | None = None
    """Clean accuracy under distribution shift."""
    r_ood: Estimate | None = None
    """Robust accuracy under distribution shift."""
    threats: dict[str, ThreatScore] = {}
    """Further threat models."""
    union: ThreatScore | None = None
    """Under every one of several threat models, example by example; absent with one threat, or if not asked for."""
    r_ood_threats: Estimate | None = None
    """Mean robust accuracy over the unseen threats, in distribution; absent unless every one of them has a result."""
    r_ood_overall: Estimate | None = None
    """Mean of `r_ood` and `r_ood_threats`: what OODRobustBench calls OOD robustness."""
    unseen: dict[str, Estimate] = {}
    """Robust accuracy in distribution under each unseen threat."""
    specs: dict[str, tuple[str, ...]] = {}
    """Names of what AutoAttack measured, by role such as `r_id`; roles that other attacks measured are absent."""
    audit: SelectionAudit | None = None
    """What other weights of the same runs reach; absent where the suite follows no protocol."""
    gaps: Gaps = Gaps()
    """Differences between the columns."""
    domains: tuple[DomainScore, ...] = ()
    """One entry a domain and side."""
    worst: dict[Cell, Worst] = {}
    """Worst domain of each column."""
    corruption: CorruptionErrors | None = None
    """Errors over the common corruptions; absent unless all 15 were measured at the same severities."""
    spread: dict[Cell, Spread] = {}
    """Split and seed components of each column; needs two domains and two seeds."""
    train_passes_per_example: NonNegativeFloat | None = None
    """Forward plus backward passes of this training alone, per training example, mean over seeds."""
    start_passes_per_example: NonNegativeFloat | None = None
    """The same for everything it started from; 0 from random weights, absent if the start was a given file."""
    selection_passes_per_example: NonNegativeFloat | None = None
    """Passes on validation data, per training example, mean over seeds."""
    train_wall_s: NonNegativeFloat | None = None
    """Seconds of this training alone, mean over seeds."""
    selected_on: tuple[str, ...] = ()
    """What selected the weights: `last` (nothing did), `validation`, `validation-robust`, or what the method says."""
    flags: tuple[str, ...] = ()
    """Codes of the reasons for doubt that any of its cells raised."""
    comparisons: dict[Cell, Comparison] = {}
    """Against the baseline row, column by column."""
    missing: tuple[Missing, ...] = ()
    """Cells without a result; a row with any is shown but not ranked."""
    pareto: bool = False
    """Whether it is complete and no complete row dominates it."""

    @property
    def ranked(self) -> bool:
        """Whether every cell of the row has a result."""
        return not self.missing

    def column(self, name: Cell) -> Estimate | None:
        """The estimate in one of the four columns."""
        found: Estimate | None = getattr(self, name)
        return found


class SuiteTable(Frozen):
    """The scored suite."""

    suite: str
    """Name of the suite."""
    version: NonNegativeInt
    """Its version."""
    suite_digest: Digest
    """Its digest."""
    summary: str
    """What it answers."""
    threats: tuple[str, ...]
    """Threat models; the first one fills the robust columns."""
    unseen_threats: tuple[str, ...] = ()
    """Threat models of the unseen threats."""
    id_domains: tuple[str, ...]
    """Domains of the in-distribution half."""
    ood_domains: tuple[str, ...]
    """Domains of the out-of-distribution half."""
    pareto: tuple[Cell, ...]
    """Columns of the front."""
    baseline: str
    """Row that the others are compared with."""
    confidence: Fraction01
    """Nominal coverage of every interval."""
    protocol: ProtocolUse | None = None
    """The frozen protocol that the suite follows, and where it does not."""
    rows: tuple[MethodScore, ...]
    """One a method, in the order of the suite."""
