from __future__ import annotations

import json

import pytest

from robusteval.attacks import ATTACKS
from robusteval.data import AUGMENTATIONS, DATASETS
from robusteval.evaluators import EVALUATORS
from robusteval.methods import METHODS
from robusteval.models import ARCHITECTURES
from robusteval.schema import registry as module
from robusteval.schema.errors import RobustevalError, UnknownNameError
from robusteval.schema.registry import Registry


class Point:
    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value


CODECS: Registry[object] = Registry(
    "codec",
    {"decode": ("json:JSONDecoder", "reads"), "encode": ("json:JSONEncoder", "writes")},
    families={"json/": ("operator:attrgetter", "anything")},
)


def test_targets_are_imported_on_first_use() -> None:
    assert CODECS.load("decode") is json.JSONDecoder
    assert CODECS.names() == ["decode", "encode"]


def test_a_family_gets_what_follows_its_prefix() -> None:
    assert CODECS.load("json/dumps")(json) is json.dumps  # type: ignore[operator]
    assert "json/dumps" in CODECS


def test_an_unknown_name_is_an_error_with_near_matches() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown codec 'decoed'; did you mean 'decode'.*ls codecs"):
        CODECS.load("decoed")


def test_a_plug_in_comes_in_by_the_same_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module, "entry_points", lambda group: [Point("tool", "json:tool")] if group == CODECS.group else []
    )
    assert CODECS.entries()["tool"].summary == "plug-in json:tool"
    assert "tool" in CODECS


def test_a_plug_in_cannot_take_a_name_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "entry_points", lambda group: [Point("encode", "json:other")])
    with pytest.raises(RobustevalError, match="registered twice"):
        CODECS.entries()


@pytest.mark.parametrize(
    "registry", [ATTACKS, DATASETS, EVALUATORS, METHODS, ARCHITECTURES, AUGMENTATIONS], ids=lambda r: r.kind
)
def test_every_registered_name_loads_and_describes_its_parameters(registry: Registry[object]) -> None:
    for name, entry in registry.entries().items():
        target = registry.load(name)
        fields = target.Params.model_fields  # type: ignore[attr-defined]
        assert entry.summary
        assert target.__doc__, name
        undocumented = [field for field, info in fields.items() if not info.description]
        assert not undocumented, f"{registry.kind} {name}: {undocumented} have no docstring line"
