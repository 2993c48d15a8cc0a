"""A new board from a suite that has been run: its examples, threats and attacks become the board's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from robusteval.leaderboard.boards import Board, Column, Minimum, SuiteRef
from robusteval.leaderboard.protocols import protocol_digest
from robusteval.schema.cells import EvalCell
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
WHOLE = ""
"""Name of the only fold of a suite without folds."""
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
        UsageError: nothing has finished, or the rows were measured on different examples or by different protocols.
    """
    found = _measured(plan, records)
    columns = [column for column in CELLS if role_of(column) in found.examples]
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
            examples=found.examples,
            seeds=len({row.seed for row in plan.rows}),
            attacks=tuple(sorted((found.attacks or set()) - {"clean", "robust"})),
        ),
        threats=plan.threats,
        ids=found.folds.get(WHOLE, {}),
        folds={fold: ids for fold, ids in found.folds.items() if fold != WHOLE},
        average="macro" if plan.protocol is None else plan.protocol.average,
        protocols=found.protocols,
    )


@dataclass
class _Measured:
    """What the finished cells of a suite have in common.

    Attributes:
        folds: fold to the ids digest of each role.
        examples: role to examples, the fewest of any fold.
        protocols: role to digest of how it was measured.
        attacks: outcomes that every attacked cell has.
    """

    folds: dict[str, dict[str, str]] = field(default_factory=dict)
    examples: dict[str, int] = field(default_factory=dict)
    protocols: dict[str, str] = field(default_factory=dict)
    attacks: set[str] | None = None


def _measured(plan: StoredPlan, records: Mapping[str, ResultRecord]) -> _Measured:
    found = _Measured()
    folds = dict.fromkeys(row.fold for row in plan.rows)
    for column in CELLS:
        role = role_of(column)
        done = {fold: _finished(plan, records, fold, role) for fold in folds}
        if not all(done.values()):
            continue
        for fold, cells in done.items():
            where = f"{column} [{fold}]" if fold else column
            found.folds.setdefault(fold, {})[role] = _only(
                plan, {record.cell.data.ids_digest for record in cells}, f"on different examples in {where}"
            )
        every = [record for cells in done.values() for record in cells]
        asked = {protocol_digest(record.cell) for record in every if isinstance(record.cell, EvalCell)}
        found.protocols[role] = _only(plan, asked, f"by different protocols in {column}")
        found.examples[role] = min(record.cell.data.n for record in every)
        for record in every if column.startswith("r_") else ():
            names = set(record.evaluation.outcomes) if record.evaluation is not None else set()
            found.attacks = names if found.attacks is None else found.attacks & names
    return found


def _finished(plan: StoredPlan, records: Mapping[str, ResultRecord], fold: str, role: str) -> list[ResultRecord]:
    keys = [row.cells[role] for row in plan.rows if row.fold == fold and role in row.cells]
    found = [records[key] for key in keys if key in records]
    return [record for record in found if record.status == "ok" and record.evaluation is not None]


def _only(plan: StoredPlan, values: set[str], how: str) -> str:
    if len(values) > 1:
        raise UsageError(f"suite {plan.suite}: rows were measured {how}; run it again")
    return values.pop()
