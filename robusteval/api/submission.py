"""Results for a leaderboard: what the store lacks is measured first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robusteval.api.evaluation import evaluate
from robusteval.api.models import AnyModel
from robusteval.api.running import run
from robusteval.leaderboard.boards import Board, role_columns
from robusteval.planning.loader import load_suite
from robusteval.schema.errors import UnknownNameError, UsageError
from robusteval.schema.plans import RowSeed
from robusteval.schema.records import ResultRecord


def model_rows(
    board: Board, models: Sequence[AnyModel], suite: str | Path, label: str, **measured: Any
) -> tuple[list[RowSeed], dict[str, ResultRecord]]:
    """Measure models on the cells that a board ranks; what is stored is not measured again.

    Args:
        board: the board.
        models: one a training seed.
        suite: the board's suite, by name or file.
        label: what the row is called.
        **measured: `store`, `device`, and how the models are shown images, as in `evaluate`.

    Returns:
        A row for each model, numbered as training seeds, and the records by key.

    Raises:
        UsageError: the suite is not the board's, or a model does not fit it.
    """
    same_suite(board, suite)
    roles = [role for role, _ in role_columns(board)]
    rows: list[RowSeed] = []
    records: dict[str, ResultRecord] = {}
    for seed, model in enumerate(models):
        found = evaluate(model, suite, cells=roles, name=label, **measured)
        rows.append(found.plan.rows[0].model_copy(update={"label": label, "seed": seed}))
        records |= found.records
    return rows, records


def run_row(board: Board, suite: str | Path, row: str, *, store: str, device: str = "auto") -> None:
    """Train and measure what the store lacks of one row of a board's suite.

    Raises:
        UsageError: the suite is not the board's, or has no such row.
        CellError: cells failed.
    """
    same_suite(board, suite)
    run(suite, store=store, only=f"label={row}", device=device)


def same_suite(board: Board, suite: str | Path) -> None:
    """Make sure that a suite is the one that a board ranks.

    Raises:
        UsageError: it is another one, or there is no such suite.
    """
    try:
        spec = load_suite(suite).spec
    except UnknownNameError as error:
        raise UsageError(f"board {board.name}: {error}; give the file of its suite with --suite") from None
    if board.suite is None or (spec.name, spec.version) != (board.suite.name, board.suite.version):
        wanted = "reported numbers only" if board.suite is None else f"{board.suite.name}@{board.suite.version}"
        raise UsageError(f"{suite} is {spec.name}@{spec.version}; board {board.name} ranks {wanted}")
