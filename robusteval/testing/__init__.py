"""Regression checks in pytest: `robusteval_check(model)` against an accepted baseline.

The plug-in is `robusteval.testing.plugin`; `suite_cells` names the cells of a suite for parametrised tests.
"""

from __future__ import annotations

from robusteval.testing.cells import suite_cells

__all__ = ["suite_cells"]
