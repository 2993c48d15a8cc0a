"""Cells whose worker died: tried again a few times, and then given up by name."""

from __future__ import annotations

from collections import Counter

from robusteval.execution.events import CellSummary, CellTask


class LostCells:
    """Counts how often each cell was lost.

    A cell that raised has said what is wrong, and its failure is stored; it is never tried again here. A cell whose
    worker or node died has said nothing, so it is handed out again: what is in the store by then decides whether it
    runs.

    Args:
        limit: how often a cell may be lost and tried again.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._times: Counter[str] = Counter()

    def again(self, task: CellTask) -> bool:
        """Count a loss; whether the cell should be tried again."""
        self._times[task.key] += 1
        return self._times[task.key] <= self._limit

    def given_up(self, task: CellTask, reason: str) -> CellSummary:
        """Summary of a cell that was lost too often.

        Args:
            task: the cell.
            reason: what became of its last worker.
        """
        times = self._times[task.key]
        often = f" ({times} times)" if times > 1 else ""
        return CellSummary(task.key, "failed", 0.0, f"WorkerDied: {' '.join(reason.split())}{often}")
