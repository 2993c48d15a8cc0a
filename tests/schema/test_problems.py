from __future__ import annotations

from robusteval.schema.problems import _field_note, dotted, model_at
from robusteval.schema.source import one_line, shorten
from robusteval.schema.specs import EvaluateSpec, MethodSpec, SuiteSpec, ThreatSpec
from robusteval.schema.types import Component, Resources


def test_a_location_is_written_as_a_user_would_say_it() -> None:
    assert dotted(("methods", 2, "params", "epochs")) == "methods[2].params.epochs"
    assert dotted(()) == ""


def test_the_model_of_a_nested_value_is_found() -> None:
    assert model_at(SuiteSpec, ()) is SuiteSpec
    assert model_at(SuiteSpec, ("methods", 3)) is MethodSpec
    assert model_at(SuiteSpec, ("evaluate",)) is EvaluateSpec
    assert model_at(SuiteSpec, ("evaluate", "threats", 0)) is ThreatSpec
    assert model_at(SuiteSpec, ("evaluate", "threats", 0, "attacks", 1)) is Component
    assert model_at(SuiteSpec, ("methods", 0, "label")) is None
    assert model_at(SuiteSpec, ("absent",)) is None


def test_quotes_are_short_and_on_one_line() -> None:
    assert shorten("x" * 100, 20) == "'" + "x" * 16 + "..."
    assert one_line(" a\n\tb\x00\u2028c ") == "a b c"


def test_an_acronym_keeps_its_capitals() -> None:
    assert _field_note(Resources, "cpus").startswith("CPU threads")
    assert _field_note(Resources, "memory_gb").startswith("main memory")
