"""Which AutoAttack measured a robust accuracy: the names that stand beside the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from robusteval.schema.plans import RowSeed
from robusteval.scoring.outcomes import Records
from robusteval.scoring.results import MethodScore, SuiteTable


def read_specs(seeds: Sequence[RowSeed], records: Records) -> dict[str, tuple[str, ...]]:
    """Names of what AutoAttack measured, by role such as `r_id`, without repetition; other roles are absent.

    Args:
        seeds: one row of a plan, seed by seed and fold by fold.
        records: cell key to record.
    """
    found: dict[str, dict[str, None]] = {}
    for one in seeds:
        for role, key in one.cells.items():
            record = records.get(key)
            if record is not None and record.evaluation is not None and record.evaluation.spec is not None:
                found.setdefault(role, {})[record.evaluation.spec] = None
    return {role: tuple(names) for role, names in found.items()}


def spec_notes(table: SuiteTable) -> list[str]:
    """One sentence with the name of every AutoAttack number of the table, or none."""
    by_role: dict[str, dict[str, None]] = {}
    for row in table.rows:
        for role, names in row.specs.items():
            by_role.setdefault(role, {}).update(dict.fromkeys(names))
    if not by_role:
        return []
    parts = [f"{role} {', '.join(names)}" for role, names in by_role.items()]
    return [f"AutoAttack: {'; '.join(parts)}."]


def flat_specs(table: SuiteTable, row: MethodScore) -> dict[str, str | None]:
    """The names of one row under `spec[ROLE]`, for every role that AutoAttack measured in any row."""
    roles = dict.fromkeys(role for one in table.rows for role in one.specs)
    return {f"spec[{role}]": " + ".join(row.specs.get(role, ())) or None for role in roles}
