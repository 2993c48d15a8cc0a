from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from robusteval.cli.options import Listing
from robusteval.planning.targets import KINDS

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("what", list(Listing))
def test_everything_can_be_listed(command: Command, finished: Path, what: Listing) -> None:
    code, out, err = command("ls", what.value, "--store", finished)
    assert (code, err) == (0, "")
    listed = json.loads(command("ls", what.value, "--store", finished, "--json")[1])
    assert len(listed) == len(out.splitlines()) - 2
    assert len(listed) > 1


def test_every_kind_of_registered_thing_can_be_listed() -> None:
    assert {f"{kind}s" for kind in KINDS} | {"suites", "results", "protocols", "executors"} == {
        what.value for what in Listing
    }


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
