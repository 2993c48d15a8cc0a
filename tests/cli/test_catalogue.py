from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from robusteval.cli.options import Listing
from robusteval.planning.names import packaged_suites
from robusteval.planning.targets import KINDS, registry

Command = Callable[..., tuple[int, str, str]]
NAMES = sorted({name for kind in KINDS for name in registry(kind).names()} | set(packaged_suites()))


@pytest.mark.parametrize("what", list(Listing))
def test_everything_can_be_listed(command: Command, finished: Path, what: Listing) -> None:
    code, out, err = command("ls", what.value, "--store", finished)
    assert (code, err) == (0, "")
    listed = json.loads(command("ls", what.value, "--store", finished, "--json")[1])
    assert len(listed) == len(out.splitlines()) - 2
    assert len(listed) > 1


def test_every_kind_of_registered_thing_can_be_listed() -> None:
    assert {f"{kind}s" for kind in KINDS} | {"suites", "results", "protocols"} == {what.value for what in Listing}


def test_a_pattern_keeps_what_fits(command: Command, finished: Path) -> None:
    assert {entry["name"] for entry in json.loads(command("ls", "methods", "--match", "*ft", "--json")[1])} == {
        "aft",
        "lp-ft",
        "rift",
    }
    assert "no attacks match" in command("ls", "attacks", "--match", "zzz")[1]
    titles = [
        entry["title"]
        for entry in json.loads(command("ls", "results", "--match", "longer*", "--store", finished, "--json")[1])
    ]
    assert len(titles) == 5
    assert all("longer seed 0" in title for title in titles)


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


@pytest.mark.parametrize(("kind", "name"), [("attacks", "torchattacks/APGD"), ("architectures", "timm/resnet18")])
def test_a_pattern_inside_a_family_lists_its_members(command: Command, kind: str, name: str) -> None:
    code, out, _ = command("ls", kind, "--match", name[:-1] + "*", "--json")
    assert code == 0
    assert name in [entry["name"] for entry in json.loads(out)]


def test_a_store_of_failures_alone_says_so(command: Command, tmp_path: Path) -> None:
    failure = tmp_path / "failures" / "ab" / ("ab" * 32 + ".json")
    failure.parent.mkdir(parents=True)
    failure.write_text("{}")
    code, out, _ = command("ls", "results", "--store", tmp_path)
    assert code == 0
    assert "1 cell failed" in out
