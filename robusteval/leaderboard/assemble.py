"""From stored results to a measured entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robusteval.leaderboard.boards import Board, role_columns
from robusteval.leaderboard.entries import Claims, Entry
from robusteval.leaderboard.recount import column_values
from robusteval.schema.errors import UsageError
from robusteval.schema.plans import RowSeed
from robusteval.schema.records import ResultRecord
from robusteval.scoring.outcomes import Groups, each_alone


def assemble_entry(
    board: Board,
    entry_id: str,
    claims: Claims,
    rows: Sequence[RowSeed],
    records: Mapping[str, ResultRecord],
    groups: Groups = each_alone,
    supersedes: str | None = None,
) -> Entry:
    """Put the results of one model into an entry; every number is computed from the outcomes.

    Args:
        board: board it is for.
        entry_id: its id.
        claims: what the submitter says.
        rows: training seeds with the cells of each.
        records: cell key to record.
        groups: from an ids digest to the group of each example.
        supersedes: id of the entry that it corrects.

    Raises:
        UsageError: a cell that the board ranks has no result.
        CorruptRecordError: a record contradicts itself.
    """
    roles = [role for role, _ in role_columns(board)]
    kept: list[RowSeed] = []
    for row in rows:
        cells = {role: row.cells[role] for role in roles if role in row.cells}
        done = [role for role, key in cells.items() if key in records and records[key].status == "ok"]
        missing = [role for role in roles if role not in done]
        if missing:
            raise UsageError(f"{entry_id}: {row.seed_name} has no result for {', '.join(missing)}; run its suite")
        kept.append(row.model_copy(update={"cells": cells}))
    keys = dict.fromkeys(key for row in kept for key in row.cells.values())
    chosen = tuple(records[key] for key in keys)
    codes = {flag.code for record in chosen if record.evaluation for flag in record.evaluation.flags}
    draft = Entry(
        id=entry_id,
        board=board.name,
        badge="measured",
        supersedes=supersedes,
        claims=claims,
        suite=board.suite,
        columns={},
        flags=tuple(sorted(codes)),
        rows=tuple(kept),
        records=chosen,
    )
    return draft.model_copy(update={"columns": column_values(board, draft, groups)})
