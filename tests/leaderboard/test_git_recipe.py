"""The script for boards in git, in a real repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from robusteval.leaderboard.entries import Entry
from robusteval.leaderboard.shelf import Shelf

SCRIPT = Path(__file__).parents[2] / "leaderboards" / "git" / "check-boards.sh"
pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or shutil.which("bash") is None, reason="needs git and bash"
)


@pytest.fixture
def repository(shelf: Shelf, make_entry: Callable[..., Entry], tmp_path: Path) -> Path:
    """A repository with a board of one entry on `main`, on a branch `change`."""
    root = tmp_path / "repository"
    (root / "boards").mkdir(parents=True)
    shelf.add(make_entry("first"))
    shutil.copytree(shelf.folder, root / "boards" / shelf.folder.name)
    git(root, "init", "-q", "-b", "main")
    commit(root)
    git(root, "checkout", "-q", "-b", "change")
    return root


def git(root: Path, *words: str) -> None:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True)


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "x")


def judged(root: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run the script with the robusteval of these tests."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "robusteval").write_text(f'#!/bin/sh\nexec {sys.executable} -m robusteval.cli.main "$@"\n')
    (tools / "robusteval").chmod(0o755)
    source = str(Path(__file__).parents[2])
    surroundings = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": source}
    command = ["bash", str(SCRIPT), "boards", "main"]
    return subprocess.run(command, cwd=root, env=surroundings, capture_output=True, text=True, check=False, timeout=120)


def test_a_new_entry_passes(repository: Path, make_entry: Callable[..., Entry], tmp_path: Path) -> None:
    Shelf(repository / "boards" / "synthetic").add(make_entry("second", level=0.7))
    commit(repository)
    found = judged(repository, tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    assert "2 entries on 1 boards; 0 refused" in found.stdout


def test_a_removed_entry_is_refused_by_name(repository: Path, tmp_path: Path) -> None:
    (repository / "boards" / "synthetic" / "entries" / "first.json").unlink()
    commit(repository)
    found = judged(repository, tmp_path)
    assert found.returncode == 6
    assert "boards/synthetic/entries/first.json" in found.stderr


def test_a_changed_entry_is_refused_by_name(repository: Path, tmp_path: Path) -> None:
    path = repository / "boards" / "synthetic" / "entries" / "first.json"
    path.write_text(path.read_text().replace("Model first", "Model best"))
    commit(repository)
    found = judged(repository, tmp_path)
    assert found.returncode == 6
    assert "never changed" in found.stderr


def test_a_new_entry_that_is_no_entry_is_refused(repository: Path, tmp_path: Path) -> None:
    (repository / "boards" / "synthetic" / "entries" / "second.json").write_text("{}")
    commit(repository)
    found = judged(repository, tmp_path)
    assert found.returncode == 6
    assert "second.json" in found.stderr
