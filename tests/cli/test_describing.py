from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from robusteval.planning.names import packaged_suites
from robusteval.planning.targets import KINDS, registry

Command = Callable[..., tuple[int, str, str]]
NAMES = sorted({name for kind in KINDS for name in registry(kind).names()} | set(packaged_suites()))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_can_be_described(command: Command, name: str) -> None:
    code, out, err = command("describe", name)
    assert (code, err) == (0, "")
    assert name in out.splitlines()[0]
    for entry in json.loads(command("describe", name, "--json")[1]):
        assert entry["text"]
        for parameter in entry.get("parameters", []):
            assert parameter["text"], f"{entry['kind']} {name}: {parameter['name']} is not explained"


def test_a_description_gives_defaults_as_a_suite_would_write_them(command: Command) -> None:
    (found,) = json.loads(command("describe", "pgd-at", "--json")[1])
    parameters = {one["name"]: one for one in found["parameters"]}
    assert parameters["epsilon"]["default"] == "8/255"
    assert parameters["optimizer"]["type"] == "sgd | adam"
    assert found["start"] == "optional"


def test_a_name_of_two_kinds_is_described_twice(command: Command) -> None:
    assert [entry["kind"] for entry in json.loads(command("describe", "digits", "--json")[1])] == ["suite", "dataset"]


def test_a_member_of_a_family_is_described(command: Command) -> None:
    code, out, _ = command("describe", "torchattacks/FGSM")
    assert code == 0
    assert out.splitlines()[0] == "attack torchattacks/FGSM"


def test_a_name_that_nothing_has_is_one_line_with_the_nearest(command: Command) -> None:
    code, out, err = command("describe", "erx")
    assert (code, out) == (2, "")
    assert err.startswith("error: unknown name 'erx'; did you mean 'erm'?")
    assert len(err.splitlines()) == 1
