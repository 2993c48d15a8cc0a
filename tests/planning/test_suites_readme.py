from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from robusteval.planning.loader import load_suite
from robusteval.planning.names import packaged_suites, suites_folder
from robusteval.schema.specs import (
    EvaluateSpec,
    MethodSpec,
    OodSpec,
    Reference,
    ScoreSpec,
    ShiftSpec,
    SliceSpec,
    SuiteSpec,
    ThreatSpec,
    TrainSpec,
    WeightsSpec,
)
from robusteval.schema.types import Resources

README = suites_folder() / "README.md"
MODELS = (
    SuiteSpec,
    Reference,
    TrainSpec,
    MethodSpec,
    WeightsSpec,
    EvaluateSpec,
    SliceSpec,
    OodSpec,
    ShiftSpec,
    ThreatSpec,
    ScoreSpec,
    Resources,
)


def tables() -> list[set[str]]:
    """The first columns of the tables of keys, one set a table."""
    blocks = re.findall(r"\| key \| meaning \|\n\|---\|---\|\n((?:\|.*\n)+)", README.read_text())
    return [set(re.findall(r"^\| `(\w+)` \|", block, flags=re.MULTILINE)) for block in blocks]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_one_table_explains_exactly_the_keys_of_each_part(model: type[BaseModel]) -> None:
    assert set(model.model_fields) in tables()


def test_every_packaged_suite_is_listed() -> None:
    text = README.read_text()
    assert all(f"| `{name}.yaml` |" in text for name in packaged_suites())


def test_the_example_is_a_right_suite(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(name: .*?)```", README.read_text(), flags=re.DOTALL)
    (tmp_path / "my-suite.yaml").write_text(example)
    assert load_suite(tmp_path / "my-suite.yaml").spec.name == "my-suite"
