"""Scored suites as pandas frames, for notebooks and further analysis."""

from __future__ import annotations

from typing import Any

import pandas as pd

from robusteval.schema.plans import StoredPlan, unseen_role
from robusteval.scoring.outcomes import Groups, Outcomes, Records, each_alone, evaluation_of, read_outcomes
from robusteval.scoring.render import flat_rows
from robusteval.scoring.results import SuiteTable
from robusteval.scoring.threats import distinct_names


def to_frame(table: SuiteTable) -> pd.DataFrame:
    """One row a method, indexed by its name; accuracies are fractions, absent ones missing."""
    return pd.DataFrame(flat_rows(table)).set_index("method")


def domain_frame(table: SuiteTable) -> pd.DataFrame:
    """Long form: one row a method, domain and kind (`clean`, `robust`) with `value`, `low`, `high`, `n`."""
    rows: list[dict[str, Any]] = []
    for row in table.rows:
        for entry in row.domains:
            for kind, estimate in (("clean", entry.clean), ("robust", entry.robust)):
                if estimate is not None:
                    rows.append(
                        {
                            "method": row.method,
                            "side": entry.side,
                            "domain": entry.domain,
                            "kind": kind,
                            "value": estimate.value,
                            "low": estimate.low,
                            "high": estimate.high,
                            "n": estimate.n,
                        }
                    )
    columns = ["method", "side", "domain", "kind", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def attack_frame(plan: StoredPlan, records: Records, groups: Groups = each_alone) -> pd.DataFrame:
    """Long form: accuracy after each attack alone, mean over the seeds that have it.

    The outcomes `clean` (no attack) and `robust` (all attacks) of the same examples are rows too. Columns: `method`,
    `side` (`id`, `ood`, or `unseen` for unseen threats, which are in distribution), `threat`, `attack`, `value`, `low`,
    `high`, `n`, `seeds`.

    Raises:
        CorruptRecordError: a record contradicts the plan or itself.
    """
    rows: list[dict[str, Any]] = []
    cells = [
        (side, name, f"r_{side}@{index}")
        for index, name in enumerate(distinct_names(plan.threats))
        for side in ("id", "ood")
    ]
    cells += [("unseen", name, unseen_role(index)) for index, name in enumerate(distinct_names(plan.unseen_threats))]
    for label in plan.labels:
        for side, threat, role in cells:
            for attack, outcomes in _attacks(plan, label, role, records, groups).items():
                mean = outcomes.mean()
                rows.append(
                    {
                        "method": label,
                        "side": side,
                        "threat": threat,
                        "attack": attack,
                        "value": mean.value,
                        "low": mean.low,
                        "high": mean.high,
                        "n": mean.n,
                        "seeds": len(outcomes.seeds),
                    }
                )
    columns = ["method", "side", "threat", "attack", "value", "low", "high", "n", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def _attacks(plan: StoredPlan, label: str, role: str, records: Records, groups: Groups) -> dict[str, Outcomes]:
    """Outcomes that every finished seed of one row and role has, by name, in the order of the records."""
    seeds = [row for row in plan.row(label) if role in row.cells]
    found = [records[row.cells[role]] for row in seeds if row.cells[role] in records]
    done = [evaluation_of(record) for record in found if record.status == "ok"]
    names = [name for name in (done[0].outcomes if done else {}) if not name.startswith("attacked/")]
    shared = [name for name in names if all(name in item.outcomes for item in done)]
    read = {name: read_outcomes(seeds, role, name, records, groups) for name in shared}
    return {name: outcomes for name, outcomes in read.items() if outcomes is not None}
