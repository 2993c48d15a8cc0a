"""What a suite run asked for, as the store keeps it: which cell plays which role in which row of the table.

Scoring needs the records and this document, and nothing that was alive while the suite ran.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from robusteval.schema.errors import unknown_name
from robusteval.schema.specs import CELLS, Cell
from robusteval.schema.threats import Threat
from robusteval.schema.types import Digest, Frozen, Name, NonNegativeInt, PositiveInt

Role = Annotated[str, Field(pattern=r"^(a_id|a_ood(:last|:training-domain)?|(r_id|r_ood|r_unseen)@(0|[1-9][0-9]*))$")]
"""What an eval cell is for: `a_id`, `a_ood`, `a_ood:RULE` for the weights that another selection rule would have kept,
`r_id@T`, `r_ood@T` where T is the index of a threat, or `r_unseen@T`
where T is the index of an unseen threat."""


def role_of(column: Cell, threat: int = 0) -> str:
    """Role of the cell that fills `column`; clean columns have no threat."""
    return f"{column}@{threat}" if column.startswith("r_") else column


def stands_for(name: str, role: str) -> bool:
    """Whether a name that a user wrote means a role: itself, or `r_id` every threat of it."""
    return name in (role, role.partition("@")[0])


AuditedRule = Literal["last", "training-domain"]
"""Selection rule whose weights every training keeps."""


def audit_role(rule: AuditedRule) -> str:
    """Role of the cell that measures the weights that another selection rule would have kept, out of distribution."""
    return f"a_ood:{rule}"


def unseen_role(threat: int) -> str:
    """Role of the cell that measures an unseen threat, in distribution."""
    return f"r_unseen@{threat}"


class RowSeed(Frozen):
    """One row of the table, trained with one seed."""

    label: Name
    """Name of the row."""
    method: str
    """Registered method, or what the model is if it was not trained here."""
    seed: NonNegativeInt
    """Training seed."""
    fold: str = ""
    """The domain that is held out or trained on alone, in a suite with folds."""
    train_key: Digest | None
    """Key of the cell that trains the model; absent if the model was given as a file."""
    start_train_key: Digest | None = None
    """Key of the cell whose model the training starts from."""
    cells: dict[Role, Digest]
    """Role to key of the eval cell."""

    @property
    def seed_name(self) -> str:
        """The seed in words, with the fold if there is one: `seed 1 [photo]`."""
        return f"seed {self.seed} [{self.fold}]" if self.fold else f"seed {self.seed}"


class ProtocolUse(Frozen):
    """The frozen protocol that a suite follows, and where it does not."""

    name: str
    """Versioned name."""
    digest: Digest
    """Digest of the protocol."""
    average: Literal["macro", "micro"]
    """How several target domains become one number."""
    selection: str
    """What chooses the weights."""
    deviations: tuple[str, ...] = ()
    """What the suite does otherwise, one line each."""
    runs: dict[str, PositiveInt] = {}
    """Selection rule to the trainings of one row that the published table needs with it."""


class StoredPlan(Frozen):
    """The cells of one suite run and the roles they play."""

    schema_version: Literal[1] = 1
    """Version of this format."""
    suite: Name
    """Name of the suite."""
    version: PositiveInt
    """Version of the suite."""
    suite_digest: Digest
    """Digest of the suite as resolved."""
    summary: str = ""
    """One line on what the suite answers."""
    rows: tuple[RowSeed, ...] = Field(min_length=1)
    """Rows in the order of the table; the seeds of one row share its label."""
    id_domains: tuple[str, ...]
    """Domains of the in-distribution half."""
    ood_domains: tuple[str, ...] = ()
    """Domains of the out-of-distribution half; empty if the suite has none."""
    threats: tuple[Threat, ...] = ()
    """Threat models; roles refer to them by index, and the first one fills the robust columns."""
    unseen_threats: tuple[Threat, ...] = ()
    """Threat models of the roles `r_unseen@T`, by index."""
    union: bool = True
    """Whether the table shows the accuracy under all of several threats, example by example."""
    pareto: tuple[Cell, ...] = CELLS
    """Columns over which a row must not be dominated to be marked."""
    baseline: str | None = None
    """Row that the others are compared with; the first one if absent."""
    protocol: ProtocolUse | None = None
    """The frozen protocol that the suite follows, if it names one."""
    created_at: str | None = None
    """UTC, ISO 8601."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the rows, each once, in table order."""
        return tuple(dict.fromkeys(row.label for row in self.rows))

    @property
    def baseline_row(self) -> str:
        """The row that the others are compared with."""
        return self.baseline or self.rows[0].label

    def row(self, label: str) -> tuple[RowSeed, ...]:
        """All seeds of one row."""
        return tuple(row for row in self.rows if row.label == label)

    def threat_of(self, role: str) -> Threat | None:
        """Threat model of a role; None for clean ones."""
        column, _, index = role.partition("@")
        known = self.unseen_threats if column == "r_unseen" else self.threats
        return known[int(index)] if index else None

    def plans(self, column: Cell, threat: int = 0) -> bool:
        """Whether any row is measured in `column`."""
        return any(role_of(column, threat) in row.cells for row in self.rows)

    @model_validator(mode="after")
    def _rows_fit(self) -> Self:
        seen: set[tuple[str, int, str]] = set()
        methods: dict[str, str] = {}
        for row in self.rows:
            if (row.label, row.seed, row.fold) in seen:
                raise ValueError(f"row {row.label!r} has seed {row.seed} twice")
            seen.add((row.label, row.seed, row.fold))
            if methods.setdefault(row.label, row.method) != row.method:
                raise ValueError(f"row {row.label!r} has two methods: {methods[row.label]!r} and {row.method!r}")
            for role in row.cells:
                index = re.search(r"@(\d+)$", role)
                unseen = role.startswith("r_unseen")
                known = len(self.unseen_threats if unseen else self.threats)
                if index is not None and int(index.group(1)) >= known:
                    what = f"{known} {'unseen ' if unseen else ''}threats"
                    raise ValueError(f"row {row.label!r}: role {role!r} but the plan has {what}")
        if self.baseline is not None and self.baseline not in methods:
            raise ValueError(unknown_name("baseline row", self.baseline, methods))
        return self
