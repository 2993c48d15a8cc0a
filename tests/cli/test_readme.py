"""The README keeps its word: what it tells a person to type exists and does what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_two_commands_stand_near_the_top_as_ci_reads_them() -> None:
    commands = re.findall(r"^    (pip install -e .*)$", README, flags=re.MULTILINE)
    assert commands == ["pip install -e . && robusteval run digits", 'pip install -e ".[test]" && pytest']
    assert README.index(commands[0]) < 1500


@pytest.mark.parametrize("row", re.findall(r"^\| `robusteval ([a-z-]+)[^`]*` \| (.*) \|$", README, flags=re.MULTILINE))
def test_every_command_of_the_table_exists_with_its_options(row: tuple[str, str], command) -> None:
    name, text = row
    code, out, _ = command(name, "--help")
    assert code == 0
    for option in re.findall(r"`(--[a-z-]+)", text):
        assert option in out


@pytest.mark.parametrize("kind", re.findall(r"`(suites methods [a-z ]+)`", README)[0].split())
def test_everything_that_is_said_to_be_listed_is(kind: str, command, tmp_path: Path) -> None:
    assert command("ls", kind, "--store", tmp_path)[0] == 0


def test_a_copied_suite_with_another_name_is_valid(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "cp suites/digits.yaml my-suite.yaml" in README
    shutil.copy(ROOT / "suites" / "digits.yaml", "my-suite.yaml")
    assert "robusteval validate ./my-suite.yaml" in README
    assert command("validate", "./my-suite.yaml")[0] == 0


def test_the_weights_command_makes_a_checkpoint(command, shared: Path, tmp_path: Path) -> None:
    lines = re.search(r"robusteval (import-weights resnet20\.safetensors.*?)\n\n", README, flags=re.DOTALL)
    assert lines is not None
    words = lines.group(1).replace("\\\n", " ").split()
    words[1] = str(shared / "models" / "resnet20-cifar10.safetensors")
    words[-1] = str(tmp_path / words[-1])
    code, _, err = command(*words)
    assert code == 0, err
    assert Path(words[-1]).is_file()


@pytest.mark.parametrize("name", re.findall(r"^\| `([a-z-]+)` \| ", README[README.index("## Methods") :], re.MULTILINE))
def test_every_method_and_attack_that_is_named_is_described(name: str, command) -> None:
    assert command("describe", name)[0] == 0


@pytest.mark.slow
def test_the_composite_action_posts_the_table_and_ends_with_the_verdict(finished: Path, tmp_path: Path) -> None:
    block = re.search(r"```yaml\n(name: robusteval compare\n.*?)```", README, flags=re.DOTALL)
    assert block is not None
    action = YAML(typ="safe").load(block.group(1))
    (step,) = action["runs"]["steps"]
    assert set(re.findall(r"inputs\.([a-z]+)", str(step["env"]))) == set(action["inputs"])
    programs = {"robusteval": f'exec {sys.executable} -m robusteval "$@"', "gh": f'echo "$@" > {tmp_path}/posted'}
    for name, line in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "BASE": f"{finished}::micro:erm",
        "CANDIDATE": f"{finished}::micro:erm",
        "ARGUMENTS": action["inputs"]["arguments"]["default"],
        "NUMBER": "7",
        "GITHUB_REPOSITORY": "shop/reader",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    done = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", step["run"]], cwd=tmp_path, env=env, check=False)
    assert done.returncode == 5
    table = (tmp_path / "summary.md").read_text()
    assert table.startswith("### Robustness: inconclusive")
    assert "| R_id linf-0.1 |" in table
    assert (tmp_path / "posted").read_text() == "pr comment 7 --repo shop/reader --body-file comparison.md\n"


def test_the_figure_and_the_linked_pages_are_there() -> None:
    for target in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (ROOT / target).exists(), target
