from __future__ import annotations

import numpy as np
import pytest

from robusteval.stats.components import crossed_components


def test_a_table_worked_out_by_hand() -> None:
    # Means of rows 2 and 5, of columns 3 and 4, of all 3.5; rests of 0.5 with alternating signs.
    found = crossed_components([[2.0, 2.0], [4.0, 6.0]])
    assert found is not None
    assert found.rest == pytest.approx(1.0)
    assert found.rows == pytest.approx((2 * 4.5 - 1.0) / 2)
    assert found.columns == pytest.approx(0.0)


def test_what_is_purely_of_one_kind_is_found_as_that() -> None:
    rows = crossed_components([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    columns = crossed_components([[1.0, 3.0], [1.0, 3.0]])
    assert rows is not None and columns is not None
    assert (rows.rows, rows.columns, rows.rest) == pytest.approx((0.5, 0.0, 0.0))
    assert (columns.rows, columns.columns, columns.rest) == pytest.approx((0.0, 2.0, 0.0))


def test_components_are_right_on_average() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(3000):
        table = rng.normal(0, 2, (5, 1)) + rng.normal(0, 1, (1, 4)) + rng.normal(0, 0.5, (5, 4))
        one = crossed_components(table)
        assert one is not None
        found.append((one.rows, one.columns, one.rest))
    assert np.mean(found, axis=0) == pytest.approx((4.0, 1.0, 0.25), rel=0.06)


@pytest.mark.parametrize("table", [[[1.0, 2.0]], [[1.0], [2.0]]])
def test_one_row_or_column_tells_nothing(table: list[list[float]]) -> None:
    assert crossed_components(table) is None


@pytest.mark.parametrize("table", [[1.0, 2.0], [[1.0, np.nan], [0.0, 0.0]]])
def test_what_is_no_table_of_numbers_is_refused(table: list[float]) -> None:
    with pytest.raises(ValueError, match="two axes"):
        crossed_components(table)
