"""How much of the spread of a number comes from its splits and how much from its training seeds.

Random effects of a crossed layout without repetition, y_ij = m + a_i + b_j + e_ij, by the method of moments (Searle,
Casella and McCulloch, Variance Components, 1992, section 4.3): each mean square equals its expectation, and an
estimate below zero becomes zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Components:
    """Variances, in squared units of the values.

    Attributes:
        rows: between rows.
        columns: between columns.
        rest: what neither explains: their interaction, and the noise of each value.
    """

    rows: float
    columns: float
    rest: float


def crossed_components(table: ArrayLike) -> Components | None:
    """Variance components of a complete table of values.

    Args:
        table: (r, c) values, one of each row and column.

    Returns:
        None for fewer than two rows or columns, where no spread can be told from the rest.

    Raises:
        ValueError: the table has not two axes, or holds a value that is not finite.
    """
    values = np.asarray(table, dtype=np.float64)
    if values.ndim != 2 or not bool(np.isfinite(values).all()):
        raise ValueError(f"a table of finite values has two axes, not {values.shape}")
    rows, columns = values.shape
    if rows < 2 or columns < 2:
        return None
    by_row, by_column = values.mean(axis=1), values.mean(axis=0)
    rests = values - by_row[:, None] - by_column[None, :] + values.mean()
    rest = float((rests * rests).sum() / ((rows - 1) * (columns - 1)))
    between_rows = columns * float(by_row.var(ddof=1))
    between_columns = rows * float(by_column.var(ddof=1))
    return Components(
        rows=max(0.0, (between_rows - rest) / columns),
        columns=max(0.0, (between_columns - rest) / rows),
        rest=rest,
    )
