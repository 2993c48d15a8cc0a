from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from robusteval.models.packaging import Problem, packaging_problems

ZOO = {"robustbench/__init__.py": b"new", "robustbench/zoo.py": b"206 models", "robustbench/data.py": b"same"}
OLD = {"robustbench/__init__.py": b"old", "robustbench/zoo.py": b"141 models", "robustbench/data.py": b"same"}


def _install(folder: Path, name: str, version: str, files: Mapping[str, bytes], requires: tuple[str, ...] = ()) -> None:
    """Lay out a distribution as pip does: files, METADATA and a RECORD with hashes."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    metadata = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {line}" for line in requires)]
    (info / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(metadata) + "\n")
    rows = [f"{name}-{version}.dist-info/RECORD,,"]
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(content)}")
    (info / "RECORD").write_text("\n".join(rows) + "\n")


def _healthy(folder: Path) -> None:
    for name, version in (("timm", "1.0.9"), ("pyautoattack", "0.2.0"), ("requests", "2.25.1")):
        _install(folder, name, version, {f"{name}.py": b""})
    _install(folder, "torchattacks", "3.5.1", OLD, ("requests (~=2.25.1)", "torch (>=1.7.1)"))
    _install(folder, "robustbench", "1.1.1", ZOO, ("timm ==1.0.9", "pytest ==1.0 ; extra == 'dev'"))
    (folder / "autoattack.py").touch()
    (folder / "pkg_resources.py").touch()


def _problems(folder: Path) -> dict[str, Problem]:
    return {problem.code: problem for problem in packaging_problems([str(folder)])}


def test_a_healthy_installation_has_no_problems(tmp_path: Path) -> None:
    _healthy(tmp_path)
    assert _problems(tmp_path) == {}


def test_files_overwritten_by_torchattacks_are_found_with_the_repair_command(tmp_path: Path) -> None:
    _healthy(tmp_path)
    for name, content in OLD.items():
        (tmp_path / name).write_bytes(content)
    problem = _problems(tmp_path)["robustbench-overwritten"]
    assert "torchattacks 3.5.1 overwrote 2 files of robustbench 1.1.1" in problem.what
    assert problem.fix == "pip install --force-reinstall --no-deps robustbench==1.1.1"
    assert not problem.handled


@pytest.mark.parametrize("content", [b"edited", None])
def test_changed_or_missing_files_are_found(tmp_path: Path, content: bytes | None) -> None:
    _healthy(tmp_path)
    target = tmp_path / "robustbench/zoo.py"
    target.unlink() if content is None else target.write_bytes(content)
    problem = _problems(tmp_path)["robustbench-damaged"]
    assert "1 files of robustbench 1.1.1 are changed or missing (robustbench/zoo.py)" in problem.what
    assert problem.fix.endswith("robustbench==1.1.1")


def test_missing_packages_are_found_with_the_install_command(tmp_path: Path) -> None:
    problems = _problems(tmp_path)
    assert {code for code in problems if code.endswith("-missing")} == {
        "timm-missing",
        "torchattacks-missing",
        "pyautoattack-missing",
        "robustbench-missing",
    }
    assert problems["timm-missing"].fix == "pip install timm"


def test_missing_imports_of_robustbench_are_handled(tmp_path: Path) -> None:
    _healthy(tmp_path)
    (tmp_path / "autoattack.py").unlink()
    (tmp_path / "pkg_resources.py").unlink()
    problems = _problems(tmp_path)
    assert set(problems) == {"no-autoattack", "no-pkg-resources"}
    assert all(problem.handled for problem in problems.values())


@pytest.mark.parametrize(
    ("name", "version", "code"),
    [("timm", "1.0.31", "robustbench-pins-timm"), ("requests", "2.32.0", "torchattacks-pins-requests")],
)
def test_pins_that_are_not_met_are_handled(tmp_path: Path, name: str, version: str, code: str) -> None:
    _healthy(tmp_path)
    for entry in tmp_path.glob(f"{name}-*.dist-info"):
        (entry / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        entry.rename(tmp_path / f"{name}-{version}.dist-info")
    problems = _problems(tmp_path)
    assert set(problems) == {code}
    assert problems[code].handled
    assert version in problems[code].what


def test_compatible_releases_meet_a_pin(tmp_path: Path) -> None:
    _healthy(tmp_path)
    entry = tmp_path / "requests-2.25.1.dist-info"
    (entry / "METADATA").write_text("Metadata-Version: 2.1\nName: requests\nVersion: 2.25.9\n")
    assert _problems(tmp_path) == {}


def test_a_package_called_tests_is_reported_as_handled(tmp_path: Path) -> None:
    _healthy(tmp_path)
    record = tmp_path / "robustbench-1.1.1.dist-info" / "RECORD"
    record.write_text(record.read_text() + "tests/__init__.py,,\n")
    assert _problems(tmp_path)["robustbench-tests"].handled


def test_problems_that_need_a_repair_come_first(tmp_path: Path) -> None:
    _healthy(tmp_path)
    (tmp_path / "autoattack.py").unlink()
    (tmp_path / "robustbench/zoo.py").write_bytes(b"edited")
    assert [problem.handled for problem in packaging_problems([str(tmp_path)])] == [False, True]


def test_looking_imports_none_of_the_packages() -> None:
    code = (
        "import sys; from robusteval.models.packaging import packaging_problems; packaging_problems();"
        "sys.exit(bool({'torch', 'timm', 'torchattacks', 'robustbench', 'pyautoattack'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
