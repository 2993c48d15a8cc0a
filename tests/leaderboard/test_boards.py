from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusteval.leaderboard.boards import Board, Column, board_yaml, load_board
from robusteval.leaderboard.places import boards_folder, boards_in, find_board
from robusteval.leaderboard.shelf import Shelf
from robusteval.leaderboard.text import cleaned
from robusteval.schema.errors import UnknownNameError
from robusteval.schema.source import SourceError
from robusteval.schema.threats import RecolourThreat, SpatialThreat
from robusteval.schema.types import Epsilon, Norm, ThreatModel

PLAIN = """\
name: b
version: 1
title: A board
columns:
  - {key: a_id, title: Clean accuracy}
  - {key: best, title: Best known}
order: [best]
"""


def write(folder: Path, text: str) -> Path:
    place = folder / "b"
    place.mkdir(exist_ok=True)
    (place / "board.yaml").write_text(text)
    return place


def test_a_board_is_written_and_read_back_unchanged(shelf: Shelf, board: Board) -> None:
    assert load_board(shelf.folder) == board


def test_threats_of_every_kind_are_written_and_read_back(tmp_path: Path) -> None:
    threats = (
        ThreatModel(epsilon=Epsilon("8/255")),
        ThreatModel(norm=Norm.L2, epsilon=Epsilon("0.5")),
        SpatialThreat(rotation=30.0, translation=0.1),
        RecolourThreat(epsilon=Epsilon("0.06")),
    )
    column = Column(key="best", title="Best")
    board = Board(name="b", version=1, title="T", columns=(column,), order=("best",), threats=threats)
    assert load_board(write(tmp_path, board_yaml(board))) == board


@given(st.text(max_size=60))
def test_any_title_survives_writing_and_reading(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    title = cleaned(f"x {text}")
    place = tmp_path_factory.mktemp("any") / "b"
    place.mkdir()
    board = Board(name="b", version=1, title=title, columns=(Column(key="a_id", title=title),), order=("a_id",))
    (place / "board.yaml").write_text(board_yaml(board, "Made for a test."))
    assert load_board(place) == board


def test_a_short_board_gets_its_defaults(tmp_path: Path) -> None:
    board = load_board(write(tmp_path, PLAIN))
    assert (board.suite, board.cells, board.ties.alpha) == (None, ("a_id",), 0.05)
    assert board.column("best").unit == "accuracy"


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("order: [best]", "order: [bset]", 1, "did you mean 'best'"),
        ("order: [best]", "oder: [best]", 7, "unknown key 'oder'; did you mean 'order'?"),
        ("version: 1", "version: one", 2, "version must be a whole number"),
        ("key: best", "key: a_id", 1, "two columns are called 'a_id'"),
        ("name: b", "name: c", 1, "the folder is called 'b'"),
        ("title: A board", 'title: "A \\u202e board"', 3, "control character"),
        ("order: [best]", "order: [best]\nsuite: {name: s, version: 1}", 1, "ids has no digest for a_id"),
        ("order: [best]", "order: [best]\nids: {'r_id@0': '" + "0" * 64 + "'}", 1, "the board has 0 threats"),
        ("order: [best]", "order: [best]\nties: {alpha: 0.7}", 8, "ties.alpha must be less than 0.5"),
        ("order: [best]", "order: [best]\norder: [a_id]", 8, "duplicate key 'order'"),
    ],
)
def test_a_mistake_is_named_by_file_and_line(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    place = write(tmp_path, PLAIN.replace(old, new, 1))
    with pytest.raises(SourceError) as caught:
        load_board(place)
    assert str(caught.value).startswith(f"{place / 'board.yaml'}:{line}: ")
    assert says in str(caught.value)


def test_an_absent_or_empty_board_says_what_a_board_is(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="robusteval board ls"):
        load_board(tmp_path)
    with pytest.raises(SourceError, match="a board needs at least name, version, title and columns"):
        load_board(write(tmp_path, ""))
    with pytest.raises(SourceError, match="a board is a map"):
        load_board(write(tmp_path, "[1]"))


def test_boards_are_found_by_folder_by_file_and_not_by_a_wrong_name(shelf: Shelf) -> None:
    assert find_board(shelf.folder) == find_board(shelf.folder / "board.yaml") == shelf.folder
    with pytest.raises(UnknownNameError, match="unknown board 'nowhere'"):
        find_board("nowhere")


def test_every_packaged_board_loads() -> None:
    assert (boards_folder() / "README.md").is_file()
    for name, folder in boards_in(boards_folder()).items():
        assert load_board(folder).name == name
        assert Shelf(folder).read().problems == ()


def test_the_readme_explains_exactly_the_keys_of_a_board() -> None:
    text = (boards_folder() / "README.md").read_text().partition("## board.yaml")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert {key for cell in cells for key in re.findall("`([a-z]+)`", cell)} == set(Board.model_fields)


@pytest.mark.parametrize("folds", [{}, {"art": {}}])
def test_a_board_says_which_fold_lacks_a_digest(board: Board, folds: dict[str, dict[str, str]]) -> None:
    content = board.model_dump() | {"ids": {}, "folds": folds}
    with pytest.raises(ValueError, match="ids has no digest" if not folds else "fold 'art' has no digest"):
        Board.model_validate(content)
