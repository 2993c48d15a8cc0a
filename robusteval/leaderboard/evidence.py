"""Per-example outcomes of measured entries as arrays, for tests and fronts that pair examples.

Entries are paired only where the board fixes the examples of a column, so that a place in an array means the same
example for all of them.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robusteval.leaderboard.boards import Board, role_columns
from robusteval.leaderboard.entries import Entry
from robusteval.schema.records import Bits, Evaluation, ResultRecord
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
        self._ids = dict(board.ids)
        self._groups = groups
        self._layouts: dict[str, _Layout] = {}

    def sums(self, entries: Sequence[Entry], column: str) -> NDArray[np.integer] | None:
        """Correct answers of each entry per group of examples, (m, G), as whole numbers.

        Domains of unequal size and unequal numbers of seeds are weighted by whole numbers so that a domain counts as
        much as another and an entry as much as another. None unless every entry has outcomes on the board's examples.
        """
        tables = [self._right(entry, column) for entry in entries]
        whole = [table for table in tables if table is not None]
        layout = self._layout(column)
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
        layout = self._layout(column)
        if layout is None or any(table is None for table in tables):
            return None
        right = np.stack([table.mean(axis=0, dtype=np.float32) for table in tables if table is not None])
        return Panel(right, layout.groups, layout.domains)

    def _layout(self, column: str) -> _Layout | None:
        return self._layouts.get(column)

    def _right(self, entry: Entry, column: str) -> NDArray[np.bool_] | None:
        """(S, n) outcomes of the seeds of an entry."""
        role = self._roles.get(column)
        wanted = None if role is None else self._ids.get(role)
        if role is None or wanted is None or not entry.measured:
            return None
        records = {record.cell_key: record for record in entry.records}
        rows = []
        for row in entry.rows:
            record = records.get(row.cells.get(role, ""))
            if record is None or record.evaluation is None or record.cell.data.ids_digest != wanted:
                return None
            flags = _outcome(record.evaluation, column)
            if flags is None or len(flags) != record.cell.data.n:
                return None
            if column not in self._layouts:
                self._layouts[column] = _Layout(record, self._groups)
            rows.append(flags)
        return np.array(rows, dtype=np.bool_) if rows else None


class _Layout:
    """Domains and groups of the examples of one column.

    Args:
        record: any record about them.
        groups: see `Evidence`.
    """

    def __init__(self, record: ResultRecord, groups: Groups) -> None:
        data, evaluation = record.cell.data, record.evaluation
        assert evaluation is not None
        self.domains = [name for name, count in evaluation.domains for _ in range(count)]
        names, grouped = group_names(data.ids_digest, data.n, groups)
        self.groups = list(names)
        _, domain = np.unique(np.asarray(self.domains, dtype=object).astype(str), return_inverse=True)
        sizes = np.bincount(domain)
        equal = bool(np.all(sizes == sizes[0]))
        plain = [1 if equal else max(1, round(_RESOLUTION * int(sizes.max()) / int(size))) for size in sizes]
        self.weights = (np.asarray(plain, dtype=np.int64) // math.gcd(*plain))[domain]
        _, self.codes = np.unique(np.asarray(self.groups, dtype=object).astype(str), return_inverse=True)
        self.count = int(self.codes.max()) + 1
        self.alone = equal and not grouped


def _outcome(evaluation: Evaluation, column: str) -> NDArray[np.bool_] | None:
    wanted = ("clean", "robust") if column.startswith("r_") else ("clean",)
    if any(name not in evaluation.outcomes for name in wanted):
        return None
    found = unpacked(evaluation.outcomes[wanted[0]])
    for name in wanted[1:]:
        found = found & unpacked(evaluation.outcomes[name])
    return found


def unpacked(packed: Bits) -> NDArray[np.bool_]:
    """Outcome bits as an array of n booleans."""
    return np.unpackbits(np.frombuffer(base64.b64decode(packed.bits), dtype=np.uint8), count=packed.n).astype(np.bool_)
