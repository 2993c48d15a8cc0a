"""A new board from a suite that has been run: its examples, threats and attacks become the board's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robusteval.leaderboard.boards import Board, Column, Minimum, SuiteRef
from robusteval.schema.errors import UsageError, unknown_name
from robusteval.schema.plans import StoredPlan, role_of
from robusteval.schema.records import ResultRecord
from robusteval.schema.specs import CELLS, Cell

TITLES: Mapping[Cell, str] = {
    "a_id": "Clean accuracy, ID",
    "r_id": "Robust accuracy, ID",
    "a_ood": "Clean accuracy, OOD",
    "r_ood": "Robust accuracy, OOD",
}
PAIRS: tuple[tuple[Cell, Cell], ...] = (("a_id", "r_id"), ("a_id", "a_ood"), ("r_id", "r_ood"), ("a_ood", "r_ood"))


def found_board(
    plan: StoredPlan,
    records: Mapping[str, ResultRecord],
    name: str,
    title: str = "",
    order: Sequence[str] = (),
) -> Board:
    """Make the rules of a board out of what a suite measured.

    Args:
        plan: the suite's stored plan.
        records: cell key to record; those of one finished row are enough.
        name: name of the board.
        title: one line on what it ranks; the suite's summary by default.
        order: columns that decide the order; robust accuracy in distribution first by default.

    Raises:
        UsageError: the suite has folds, or nothing finished, or its rows were measured on different examples.
    """
    if any(row.fold for row in plan.rows):
        raise UsageError(
            f"suite {plan.suite} has folds, whose examples differ; a board needs one set of examples a column"
        )
    ids, examples, attacks = _measured(plan, records)
    columns = [column for column in CELLS if role_of(column) in ids]
    if not columns:
        raise UsageError(
            f"suite {plan.suite} has no finished cell in this store; `robusteval run {plan.suite}` makes some"
        )
    for key in order:
        if key not in columns:
            raise UsageError(unknown_name("column", key, columns))
    default = [key for key in ("r_id", "a_id", "r_ood", "a_ood") if key in columns][:2]
    return Board(
        name=name,
        version=1,
        title=title or plan.summary or f"Suite {plan.suite}",
        suite=SuiteRef(name=plan.suite, version=plan.version),
        columns=tuple(Column(key=key, title=TITLES[key]) for key in columns),
        order=tuple(order) or tuple(default),
        pairs=tuple(pair for pair in PAIRS if set(pair) <= set(columns)),
        minimum=Minimum(
            examples=examples,
            seeds=len({row.seed for row in plan.rows}),
            attacks=attacks,
        ),
        threats=plan.threats,
        ids=ids,
    )


def _measured(
    plan: StoredPlan, records: Mapping[str, ResultRecord]
) -> tuple[dict[str, str], dict[str, int], tuple[str, ...]]:
    """Ids digest and number of examples per role, and the attacks that every attacked cell has."""
    ids: dict[str, str] = {}
    examples: dict[str, int] = {}
    attacks: set[str] | None = None
    for column in CELLS:
        role = role_of(column)
        found = [records[row.cells[role]] for row in plan.rows if row.cells.get(role) in records]
        done = [record for record in found if record.status == "ok" and record.evaluation is not None]
        if not done:
            continue
        digests = {record.cell.data.ids_digest for record in done}
        if len(digests) > 1:
            raise UsageError(f"suite {plan.suite}: rows were measured on different examples in {column}; run it again")
        ids[role] = digests.pop()
        examples[role] = done[0].cell.data.n
        for record in done if column.startswith("r_") else ():
            names = set(record.evaluation.outcomes) if record.evaluation is not None else set()
            attacks = names if attacks is None else attacks & names
    return ids, examples, tuple(sorted((attacks or set()) - {"clean", "robust"}))
