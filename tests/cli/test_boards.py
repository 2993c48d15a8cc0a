from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]
HEADER = (
    "dataset,threat,title,link,id_clean,id_robust,ood_robust,ood_dataset_clean,ood_dataset_robust,ood_threat_robust,"
    "extra_data,architecture,venue\n"
)
ROW = "cifar10,Linf,{title},https://example.org/{number},9{number}.23,6{number}.50,4{number}.01,79.09,43.32,46.71,true,WRN,V\n"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(HEADER + "".join(ROW.format(title=f"Paper {number}", number=number) for number in range(3)))
    return path


@pytest.fixture
def imported(command: Command, rows: Path, tmp_path: Path) -> Path:
    assert command("board", "import", "oodrobustbench", rows, "--out", tmp_path / "boards")[0] == 0
    return tmp_path / "boards"


def test_an_import_says_what_it_did_and_does_it_once(command: Command, rows: Path, tmp_path: Path) -> None:
    for added, unchanged in ((3, 0), (0, 3)):
        code, out, err = command("board", "import", "oodrobustbench", rows, "--out", tmp_path / "b", "--json")
        summary = json.loads(out)
        assert (code, err) == (0, "")
        assert (summary["read"], summary["added"], summary["unchanged"]) == ({"rows": 3}, added, unchanged)


def test_one_broken_row_is_named_and_the_others_are_imported(command: Command, rows: Path, tmp_path: Path) -> None:
    rows.write_text(rows.read_text().replace("61.50", "much"))
    code, out, err = command("board", "import", "oodrobustbench", rows, "--out", tmp_path / "b")
    assert code == 2
    assert "2 entries added" in out
    assert err == f"{rows}:3: id_robust: 'much' is not a number\n"


def test_boards_are_listed_ranked_and_checked(command: Command, imported: Path) -> None:
    name = "oodrobustbench-cifar10-linf"
    code, out, _ = command("board", "ls", "--boards", imported, "--json")
    assert (code, [(row["name"], row["reported"]) for row in json.loads(out)]) == (0, [(name, 3)])
    code, out, _ = command("board", "show", imported / name, "--top", 2)
    assert code == 0
    assert out.index("Paper-2_WRN") < out.index("Paper-1_WRN")
    assert out.index("Paper-2_WRN") < out.index("Paper-1_WRN")
    assert "only equal values tie" in out
    assert "1 more; --top shows them" in out
    code, out, _ = command("board", "show", imported / name, "--json")
    (group,) = json.loads(out)["groups"]
    assert [entry["rank"] for entry in group["entries"]] == [1, 2, 3]
    assert group["entries"][0]["values"]["r_ood_mean"]["value"] == 0.4201
    assert len(group["fronts"]) == 4
    assert command("board", "check", "--boards", imported)[:2] == (0, "3 entries on 1 boards; 0 refused\n")


def test_a_changed_entry_is_refused_with_exit_code_six(command: Command, imported: Path) -> None:
    folder = imported / "oodrobustbench-cifar10-linf"
    path = sorted((folder / "entries").glob("*.json"))[0]
    path.write_text(path.read_text().replace("0.7909", "0.9909"))
    code, out, err = command("submit", "--check", path, "--board", folder, "--json")
    assert code == 6
    assert json.loads(out)["accepted"] is False
    assert "it was changed" in err
    code, _, err = command("board", "check", folder)
    assert code == 6
    assert str(path) in err
    code, out, err = command("board", "show", folder)
    assert code == 2
    assert "it was changed" in err
    assert out.count("Paper") == 2


def test_a_sound_entry_is_accepted(command: Command, imported: Path) -> None:
    folder = imported / "oodrobustbench-cifar10-linf"
    path = sorted((folder / "entries").glob("*.json"))[0]
    code, out, err = command("submit", "--check", path, "--board", folder)
    assert (code, err) == (0, "")
    assert "accepted" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("board", "show", "nowhere"), "unknown board 'nowhere'"),
        (("board", "import", "robustbench", "absent", "--out", "x"), "absent: no such file or folder"),
        (("board", "import", "robustbnch", ".", "--out", "x"), "robustbnch"),
        (("submit", "--check", "absent.json", "--board", "nowhere"), "unknown board"),
        (("board", "check", "nowhere"), "unknown board"),
    ],
)
def test_a_mistake_is_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


def test_a_broken_board_file_is_named_by_line(command: Command, imported: Path) -> None:
    path = imported / "oodrobustbench-cifar10-linf" / "board.yaml"
    path.write_text(path.read_text().replace("version: 1", "version: -1"))
    code, _, err = command("board", "show", path.parent)
    assert code == 2
    assert err.startswith(f"{path}:3: version must be greater than 0")
