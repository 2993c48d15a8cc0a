"""A protocol: everything that has to be equal before two numbers may stand in one column.

Protocols are frozen files with versioned names. A suite that names one gets its settings, and the table lists every
place where the suite deviates from it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from robusteval.schema.digest import json_digest
from robusteval.schema.specs import Reference
from robusteval.schema.types import Frozen, JsonValue, Name, PositiveInt

Selection = Literal["last", "training-domain", "leave-one-domain-out", "oracle"]
"""What chooses among the weights of a run, or among runs: nothing; validation data of the training domains;
validation on a training domain that was held out; the target domain itself, which never ranks."""

LEAVE_ONE_OUT: Literal["leave-one-domain-out"] = "leave-one-domain-out"
"""The rule that needs further trainings."""


class SplitRule(Frozen):
    """How a domain becomes training and validation data."""

    by: Literal["domainbed", "official", "hash"]
    """`domainbed`: its seeded holdout; `official`: the lists published with the dataset; `hash`: of the example id."""
    holdout: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Share of each training domain that validates; absent where the official lists say it."""
    seeded_by_trial: bool = False
    """Whether every trial draws another split."""


class TargetRule(Frozen):
    """How a target domain is scored."""

    share: Literal["full", "80%"]
    """All of it, or what DomainBed leaves of it after its holdout."""
    average: Literal["macro", "micro"]
    """Over several targets: the mean of their accuracies, or the accuracy over their pooled images."""


class SearchRule(Frozen):
    """The hyper-parameter search that published numbers come from."""

    trials: PositiveInt
    """Repetitions, each with its own split and draws."""
    draws: PositiveInt
    """Settings tried in each trial, the default one among them."""
    ranges: dict[str, str] = {}
    """Parameter to the distribution that the other settings are drawn from; `U(a, b)` is uniform."""


class Protocol(Frozen):
    """A frozen protocol."""

    name: Name
    """Versioned name; a change is a new name."""
    summary: str
    """One line."""
    references: tuple[Reference, ...] = Field(min_length=1)
    """Where it comes from."""
    training_domains: Literal["one", "all-but-one", "given"]
    """Single source, leave one domain out, or one dataset whose shifts are separate."""
    split: SplitRule
    """Training and validation data."""
    target: TargetRule
    """Scoring."""
    selection: Selection
    """What its published column is selected with."""
    backbone: str
    """Network and start weights of its main table."""
    image_size: PositiveInt
    """Side of the images in pixels."""
    batch_per_domain: PositiveInt | None = None
    """Examples of each training domain in a batch; absent where `batch_size` counts all of them together."""
    method: dict[str, JsonValue]
    """Parameters of every training method, as a suite would write them."""
    per_dataset: dict[str, dict[str, JsonValue]] = {}
    """Parameters that another dataset changes."""
    validation_augmented: bool = False
    """Whether the published validation accuracy is measured on augmented images."""
    search: SearchRule | None = None
    """Hyper-parameter search."""
    seeds: PositiveInt
    """Training seeds behind a published number."""
    notes: tuple[str, ...] = ()
    """What a reader of its published tables has to know."""

    @property
    def digest(self) -> str:
        """SHA-256 of the protocol."""
        return json_digest(self.model_dump(mode="json", context={"canonical": True}))

    def runs(self, domains: int, selection: Selection) -> int:
        """Trainings that a selection rule needs for a whole leave-one-domain-out or single-source table.

        Args:
            domains: number of domains of the dataset.
            selection: the rule. Leave-one-domain-out also trains without every pair of domains.
        """
        tables = 1 if self.training_domains == "given" else domains
        if selection == "leave-one-domain-out":
            if self.training_domains != "all-but-one":
                raise ValueError(f"protocol {self.name!r} has no training domain to leave out")
            tables += domains * (domains - 1) // 2
        return tables * (self.search.trials * self.search.draws if self.search else self.seeds)
