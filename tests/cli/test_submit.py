from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from robusteval.leaderboard.shelf import Shelf
from robusteval.store.store import Store

Command = Callable[..., tuple[int, str, str]]


def rebuilt(source: Path, folder: Path, *, dirty: bool) -> Path:
    """A copy of a store whose records say whether their checkout had changes."""
    old, new = Store.open(source), Store.open(folder)
    for kind in ("plans", "ids"):
        shutil.copytree(source / kind, folder / kind)
    for record in old.records():
        provenance = record.provenance.model_copy(update={"git_dirty": dirty})
        new.put(record.model_copy(update={"provenance": provenance}))
    return folder


@pytest.fixture(scope="module")
def stores(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    folder = tmp_path_factory.mktemp("stores")
    return {dirty: rebuilt(finished, folder / str(dirty), dirty=dirty) for dirty in (True, False)}


@pytest.fixture
def board(command: Command, stores: dict[bool, Path], tmp_path: Path) -> Path:
    code, out, err = command("board", "init", "micro", "--store", stores[False], "--out", tmp_path / "boards")
    assert (code, err) == (0, "")
    assert "submit rows with" in out
    return tmp_path / "boards" / "micro"


def test_stored_results_are_submitted_ranked_and_verified(
    command: Command, stores: dict[bool, Path], board: Path, tmp_path: Path
) -> None:
    claims = tmp_path / "about.json"
    claims.write_text(json.dumps({"title": "One epoch", "authors": "A. One", "paper": "https://example.org/x"}))
    code, out, err = command("submit", "erm", "--board", board, "--store", stores[False], "--claims", claims)
    assert (code, err) == (0, "")
    assert "every number is what its outcomes say" in out
    assert command("submit", "longer", "--board", board, "--store", stores[False], "--id", "two-epochs")[0] == 0
    entries = Shelf(board).read().entries
    assert set(entries) == {"erm", "two-epochs"}
    assert entries["erm"].claims.authors == "A. One"
    assert command("board", "check", board)[:2] == (0, "2 entries on 1 boards; 0 refused\n")
    code, out, _ = command("board", "show", board)
    assert code == 0
    assert "exact paired tests on the same examples" in out
    code, out, _ = command("submit", "--check", board / "entries" / "erm.json", "--board", board)
    assert (code, "accepted" in out) == (0, True)
    code, out, _ = command("board", "build", board, "--out", tmp_path / "site")
    assert code == 0
    assert (tmp_path / "site" / "micro" / "entries" / "two-epochs.html").is_file()
    assert command("board", "build", board, "--out", tmp_path / "site", "--check")[0] == 0
    (tmp_path / "site" / "index.html").unlink()
    code, _, err = command("board", "build", board, "--out", tmp_path / "site", "--check")
    assert (code, err) == (1, f"{tmp_path / 'site' / 'index.html'}: differs or is missing\n")


def test_the_same_results_are_not_taken_twice_and_a_correction_is(
    command: Command, stores: dict[bool, Path], board: Path
) -> None:
    submit = ("submit", "erm", "--board", board, "--store", stores[False])
    assert command(*submit)[0] == 0
    code, _, err = command(*submit, "--id", "erm-again")
    assert code == 6
    assert "has the same cells as 'erm'" in err
    assert command(*submit, "--id", "erm-again", "--supersedes", "erm")[0] == 0
    assert [entry.id for entry in Shelf(board).read().active()] == ["erm-again"]


def test_results_of_a_changed_checkout_are_refused(command: Command, stores: dict[bool, Path], board: Path) -> None:
    code, out, err = command("submit", "erm", "--board", board, "--store", stores[True], "--json")
    assert code == 6
    assert {finding["code"] for finding in json.loads(out)["findings"]} == {"provenance"}
    assert "uncommitted changes" in err
    assert Shelf(board).read().entries == {}


def test_all_rows_are_submitted_at_once_and_a_refused_one_stops_no_other(
    command: Command, stores: dict[bool, Path], board: Path, tmp_path: Path
) -> None:
    code, out, _ = command("submit", "--all-rows", "--board", board, "--store", stores[True], "--json")
    assert code == 6
    assert [(row["entry"], row["state"]) for row in json.loads(out)["entries"]] == [
        ("erm", "refused"), ("longer", "refused"),
    ]  # fmt: skip
    shutil.copytree(stores[False], tmp_path / "part")
    found = Store.open(tmp_path / "part")
    plan = found.get_plan("micro")
    assert plan is not None
    next((tmp_path / "part").rglob(f"{plan.row('erm')[0].cells['a_id']}*.json")).unlink()
    submit = ("submit", "--all-rows", "--board", board, "--store", tmp_path / "part")
    code, out, err = command(*submit)
    assert (code, out) == (2, f"{board}: 1 not made, 1 written\n")
    assert err == "erm: row: erm: seed 0 has no result for a_id; run its suite\n"
    assert list(Shelf(board).read().entries) == ["longer"]
    assert command("submit", "--all-rows", "--board", board, "--store", stores[False])[1] == (
        f"{board}: 1 written, 1 there already\n"
    )
    assert command("board", "check", board)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--all-rows", "--id", "x"), "are about one row"),
        (("--all-rows", "erm"), "give --board, and either a model"),
        (("--all-rows", "--store", "empty"), "has no results of micro@1"),
        ((), "give --board, and either a model"),
        (("erm", "--check", "x.json"), "give --board, and either a model"),
        (("emr",), "unknown row 'emr'; did you mean 'erm'?"),
        (("erm", "--id", "../x"), "cannot be a file name"),
        (("erm", "--claims", "absent.json"), "absent.json: cannot be read"),
        (("erm", "--claims", "list.json"), "not a JSON object"),
        (("erm", "--claims", "typo.json"), "unknown parameter 'autors'; did you mean 'authors'?"),
        (("erm", "--claims", "link.json"), "is not a web address"),
        (("erm", "--store", "empty"), "has no results of micro@1"),
    ],
)
def test_a_mistake_is_one_line(
    command: Command,
    stores: dict[bool, Path],
    board: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.json").write_text("[1]")
    Path("typo.json").write_text('{"autors": "x"}')
    Path("link.json").write_text('{"paper": "javascript:alert(1)"}')
    store = () if "--store" in arguments else ("--store", stores[False])
    code, out, err = command("submit", *arguments, "--board", board, *store)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert Shelf(board).read().entries == {}


def test_a_board_is_not_founded_twice(command: Command, stores: dict[bool, Path], board: Path) -> None:
    code, _, err = command("board", "init", "micro", "--store", stores[False], "--out", board.parent)
    assert code == 2
    assert "boards are not overwritten" in err
