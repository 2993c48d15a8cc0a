"""Published results as reported entries: every field kept, no number invented, every file that fails named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robusteval.leaderboard.importers.report import Imported

IMPORTERS = ("domainbed", "oodrobustbench", "robustbench")
"""Systems whose results can be imported."""


def importer(system: str) -> Callable[[Path], Imported]:
    """The function that reads the results of a system."""
    from robusteval.schema.registry import load_target

    found: Callable[[Path], Imported] = load_target(f"robusteval.leaderboard.importers.{system}:import_{system}")
    return found
