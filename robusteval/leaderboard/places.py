"""Where boards are on disk. Imports nothing heavy, because a listing needs no more."""

from __future__ import annotations

from pathlib import Path

import robusteval
from robusteval.schema.errors import UnknownNameError, unknown_name


def boards_folder() -> Path:
    """The folder of packaged boards: inside an installed wheel, or at the top of a checkout."""
    package = Path(robusteval.__file__).parent
    inside = package / "_leaderboards"
    return inside if inside.is_dir() else package.parent / "leaderboards"


def boards_in(folder: Path) -> dict[str, Path]:
    """Folders of boards below `folder` by name, in alphabetical order."""
    return {file.parent.name: file.parent for file in sorted(folder.glob("*/board.yaml"))}


def find_board(name_or_path: str | Path) -> Path:
    """The folder of a board.

    Args:
        name_or_path: name of a packaged board, its folder, or its `board.yaml`.

    Raises:
        UnknownNameError: there is none.
    """
    path = Path(name_or_path)
    if path.name == "board.yaml" and path.is_file():
        return path.parent
    if (path / "board.yaml").is_file():
        return path
    known = boards_in(boards_folder())
    if str(name_or_path) in known:
        return known[str(name_or_path)]
    raise UnknownNameError(unknown_name("board", str(name_or_path)[:80], known, listing="robusteval board ls"))
