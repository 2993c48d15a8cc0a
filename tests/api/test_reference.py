from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import robusteval
from robusteval.api.reference import reference

DOCS = Path(__file__).parents[2] / "robusteval" / "docs"
EXEMPLIFIED = {"attack", "compare", "corrupt", "evaluate", "gate"}
"""Functions whose example needs nothing but the package."""


def test_the_page_is_what_the_docstrings_say():
    assert (DOCS / "api.md").read_text() == reference(), "python -m robusteval.api.reference > robusteval/docs/api.md"


@pytest.mark.parametrize("name", robusteval.__all__)
def test_every_function_is_on_the_page_and_its_example_runs(name):
    assert f"\n## robusteval.{name}\n" in reference()
    function = getattr(robusteval, name)
    (found,) = doctest.DocTestFinder(recurse=False).find(function, name)
    results = doctest.DocTestRunner().run(found)
    assert results.failed == 0
    assert bool(results.attempted) == (name in EXEMPLIFIED)


def test_the_footguns_are_linked_and_named():
    text = (DOCS / "footguns.md").read_text()
    assert "footguns.md" in reference()
    for words in ("Gradient masking", "n = 100", "Preprocessing", "Batch-norm mode", "Units of epsilon", "test data"):
        assert f"**{words}" in text or f"{words}.**" in text
