"""Per-example outcomes of measured entries as arrays, for tests and fronts that pair examples.

Entries are paired only where the board fixes the examples of a column, so that a place in an array means the same
example for all of them.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from robusteval.leaderboard.boards import Board, role_columns
from robusteval.leaderboard.entries import Entry
from robusteval.schema.records import Bits, ResultRecord
from robusteval.scoring.outcomes import Groups, each_alone, group_names
from robusteval.stats.front import Panel

_RESOLUTION = 100


class Evidence:
    """Outcomes of the entries of one board.

    Args:
        board: the board.
        groups: from an ids digest to the group of each example.
    """

    def __init__(self, board: Board, groups: Groups = each_alone) -> None:
        self._roles = {column: role for role, column in role_columns(board)}
        self._board = board
        self._groups = groups
        self._layouts: dict[str, _Layout] = {}

    def sums(self, entries: Sequence[Entry], column: str) -> NDArray[np.integer] | None:
        """Correct answers of each entry per group of examples, (m, G), as whole numbers.

        Domains of unequal size and unequal numbers of seeds are weighted by whole numbers so that a domain counts as
        much as another and an entry as much as another. None unless every entry has outcomes on the board's examples.
        """
        tables = [self._right(entry, column) for entry in entries]
        whole = [table for table in tables if table is not None]
        layout = self._layouts.get(column)
        if layout is None or not whole or len(whole) != len(tables):
            return None
        common = math.lcm(*(len(table) for table in whole))
        if layout.alone and common == 1:
            return np.concatenate(whole).astype(np.int8)
        found = np.zeros((len(whole), layout.count), dtype=np.int64)
        for row, table in zip(found, whole, strict=True):
            np.add.at(row, layout.codes, table.sum(axis=0) * layout.weights * (common // len(table)))
        return found

    def panel(self, entries: Sequence[Entry], column: str) -> Panel | None:
        """The same as means over seeds per example, with what the bootstrap needs."""
        tables = [self._right(entry, column) for entry in entries]
        layout = self._layouts.get(column)
        if layout is None or any(table is None for table in tables):
            return None
        right = np.stack([table.mean(axis=0, dtype=np.float32) for table in tables if table is not None])
        return Panel(right, layout.groups, layout.domains)

    def _right(self, entry: Entry, column: str) -> NDArray[np.bool_] | None:
        """(S, n) outcomes of the seeds of an entry, the folds of the board side by side."""
        role, folds = self._roles.get(column), self._board.examples
        if role is None or not entry.measured or not all(role in ids for ids in folds.values()):
            return None
        by_key = {record.cell_key: record for record in entry.records}
        seeds = sorted({row.seed for row in entry.rows})
        chosen = {(row.fold, row.seed): by_key.get(row.cells.get(role, "")) for row in entry.rows}
        table = [[chosen.get((fold, seed)) for fold in folds] for seed in seeds]
        wanted = [ids[role] for ids in folds.values()]
        rows = []
        for records in table:
            parts = [_outcome(record, digest, column) for record, digest in zip(records, wanted, strict=True)]
            if any(part is None for part in parts):
                return None
            rows.append(np.concatenate([part for part in parts if part is not None]))
        if rows and column not in self._layouts:
            first = [record for record in table[0] if record is not None]
            self._layouts[column] = _Layout(
                dict(zip(folds, first, strict=True)), self._groups, pooled=self._board.pooled(column)
            )
        return np.array(rows, dtype=np.bool_) if rows else None


class _Layout:
    """Domains and groups of the examples of one column.

    Args:
        records: fold to any record about its examples.
        groups: see `Evidence`.
        pooled: whether the examples of a fold count alike, whatever their domain.
    """

    def __init__(self, records: Mapping[str, ResultRecord], groups: Groups, *, pooled: bool) -> None:
        self.domains: list[str] = []
        self.groups: list[str] = []
        for fold, record in records.items():
            data, evaluation = record.cell.data, record.evaluation
            assert evaluation is not None
            named = [name if name == fold or not fold else f"{name} [{fold}]" for name, _ in evaluation.domains]
            counts = [count for _, count in evaluation.domains]
            alike = [fold] * len(named) if pooled else named
            self.domains += [name for name, count in zip(alike, counts, strict=True) for _ in range(count)]
            self.groups += group_names(data.ids_digest, data.n, groups)[0]
        _, domain = np.unique(np.asarray(self.domains, dtype=object).astype(str), return_inverse=True)
        sizes = np.bincount(domain)
        equal = bool(np.all(sizes == sizes[0]))
        plain = [1 if equal else max(1, round(_RESOLUTION * int(sizes.max()) / int(size))) for size in sizes]
        self.weights = (np.asarray(plain, dtype=np.int64) // math.gcd(*plain))[domain]
        _, self.codes = np.unique(np.asarray(self.groups, dtype=object).astype(str), return_inverse=True)
        self.count = int(self.codes.max()) + 1
        self.alone = equal and self.count == len(self.groups)


def _outcome(record: ResultRecord | None, digest: str, column: str) -> NDArray[np.bool_] | None:
    """Outcomes of a record in a column; None if there is none, or if it is about other examples than the board's."""
    if record is None or record.evaluation is None or record.cell.data.ids_digest != digest:
        return None
    outcomes = record.evaluation.outcomes
    wanted = ("clean", "robust") if column.startswith("r_") else ("clean",)
    if any(name not in outcomes for name in wanted):
        return None
    found = unpacked(outcomes[wanted[0]])
    for name in wanted[1:]:
        found = found & unpacked(outcomes[name])
    return found if len(found) == record.cell.data.n else None


def unpacked(packed: Bits) -> NDArray[np.bool_]:
    """Outcome bits as an array of n booleans."""
    return np.unpackbits(np.frombuffer(base64.b64decode(packed.bits), dtype=np.uint8), count=packed.n).astype(np.bool_)
