"""Columns that a table has besides accuracies: corruption errors, and the parts of the spread."""

from __future__ import annotations

from typing import Any

from robusteval.schema.specs import CELLS
from robusteval.scoring.results import CorruptionErrors, Difference, MethodScore, SuiteTable

_ERRORS = {"raw": "mCE raw", "alexnet": "mCE AlexNet", "relative": "relative mCE"}
"""Field of the corruption errors to the heading of its column."""


def flat_summaries(table: SuiteTable, row: MethodScore) -> dict[str, Any]:
    """Corruption errors and spread of a row as flat values, absent ones None; only those that some row has."""
    flat: dict[str, Any] = {}
    for field in _shown(table):
        found: Difference | None = None if row.corruption is None else getattr(row.corruption, field)
        for part in ("value", "low", "high"):
            name = f"mce_{field}"
            flat[name if part == "value" else f"{name}_{part}"] = None if found is None else getattr(found, part)
    for column in CELLS:
        if any(column in one.spread for one in table.rows):
            spread = row.spread.get(column)
            for part in ("split_sd", "seed_sd", "rest_sd"):
                flat[f"{column}_{part}"] = None if spread is None else getattr(spread, part)
    return flat


def error_headings(table: SuiteTable) -> list[str]:
    """Headings of the corruption errors that some row has."""
    return [_ERRORS[field] for field in _shown(table)]


def error_cells(table: SuiteTable, row: MethodScore, absent: str) -> list[str]:
    """Corruption errors of a row in percent, each with half the width of its interval."""
    cells = []
    for field in _shown(table):
        found: Difference | None = None if row.corruption is None else getattr(row.corruption, field)
        half = "" if found is None else f" ±{50 * (found.high - found.low):.1f}"
        cells.append(absent if found is None else f"{100 * found.value:.1f}{half}")
    return cells


def error_notes(table: SuiteTable) -> list[str]:
    """What the corruption errors are."""
    found = _first(table)
    if found is None:
        return []
    severities = ", ".join(map(str, found.severities))
    text = f"mCE raw: error in percent, mean over the 15 common corruptions at severity {severities}, unnormalised"
    if found.alexnet is not None:
        text += (
            "; mCE AlexNet: each corruption's error divided by AlexNet's; relative mCE: the same of what a corruption "
        )
        text += "adds to the clean error"
    return [text + "."]


def _first(table: SuiteTable) -> CorruptionErrors | None:
    return next((row.corruption for row in table.rows if row.corruption is not None), None)


def _shown(table: SuiteTable) -> list[str]:
    known = [row.corruption for row in table.rows if row.corruption is not None]
    return [field for field in _ERRORS if any(getattr(one, field) is not None for one in known)]
