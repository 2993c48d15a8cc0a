"""What is wrong with the installed third-party packages, found from their metadata alone: none of them is imported.

torchattacks 3.5.1 ships an old copy of 25 `robustbench/` files, and pip lets whichever package lands last win. The
copy imports, but knows 141 models instead of 206; and uninstalling torchattacks deletes the files of both.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import Distribution
from pathlib import Path

PACKAGES = ("timm", "torchattacks", "pyautoattack", "robustbench")
"""Distributions whose traps are known."""


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be.

    Attributes:
        code: stable identifier, such as `robustbench-overwritten`.
        what: what was found, in one line.
        fix: the command that repairs it, or why nothing needs to be done.
        handled: robusteval works around it.
    """

    code: str
    what: str
    fix: str
    handled: bool = False


def packaging_problems(path: Sequence[str] | None = None) -> list[Problem]:
    """Every known problem of the installation, those that robusteval works around last.

    Args:
        path: folders to look in; `sys.path` if absent.
    """
    where = list(sys.path if path is None else path)
    found = {name: _distribution(name, where) for name in PACKAGES}
    problems = [
        Problem(f"{name}-missing", f"{name} is not installed", f"pip install {name}")
        for name, distribution in found.items()
        if distribution is None
    ]
    robustbench, torchattacks = found["robustbench"], found["torchattacks"]
    if robustbench is not None:
        problems += _overwritten(robustbench, torchattacks)
        problems += _stand_ins(where)
        problems += _foreign_tests(robustbench)
    for distribution in (robustbench, torchattacks):
        if distribution is not None:
            problems += _unmet_pins(distribution, where)
    return sorted(problems, key=lambda problem: problem.handled)


def _distribution(name: str, where: Sequence[str]) -> Distribution | None:
    return next(iter(Distribution.discover(name=name, path=list(where))), None)


def _overwritten(robustbench: Distribution, torchattacks: Distribution | None) -> Iterator[Problem]:
    """Compare robustbench's files with the hashes of its own RECORD, and explain differences by torchattacks'."""
    own = _recorded(robustbench)
    foreign = _recorded(torchattacks) if torchattacks is not None else {}
    on_disk = {name: _sha256(robustbench, name) for name in own}
    changed = [name for name in own if on_disk[name] != own[name]]
    if not changed:
        return
    stale = [name for name in changed if on_disk[name] is not None and on_disk[name] == foreign.get(name)]
    names = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
    fix = f"pip install --force-reinstall --no-deps robustbench=={robustbench.version}"
    if stale and torchattacks is not None:
        what = (
            f"torchattacks {torchattacks.version} overwrote {len(stale)} files of robustbench {robustbench.version} "
            f"with an older copy ({names}); part of its model zoo is missing"
        )
        yield Problem("robustbench-overwritten", what, fix)
    else:
        what = f"{len(changed)} files of robustbench {robustbench.version} are changed or missing ({names})"
        yield Problem("robustbench-damaged", what, fix)


def _recorded(distribution: Distribution) -> dict[str, str]:
    """The files below `robustbench/` that a distribution installed, with their hashes.

    RECORD is read as text because `Distribution.files` hides missing files from Python 3.12 on.
    """
    rows = csv.reader((distribution.read_text("RECORD") or "").splitlines())
    return {
        row[0]: row[1].removeprefix("sha256=")
        for row in rows
        if len(row) >= 2 and row[0].startswith("robustbench/") and row[1].startswith("sha256=")
    }


def _sha256(distribution: Distribution, name: str) -> str | None:
    """Hash of a file as RECORD writes it, None if it cannot be read."""
    try:
        content = Path(str(distribution.locate_file(name))).read_bytes()
    except OSError:
        return None
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _stand_ins(where: Sequence[str]) -> Iterator[Problem]:
    for module, reason in (
        ("autoattack", "it is packaged as pyautoattack"),
        ("pkg_resources", "setuptools 82 dropped it"),
    ):
        if PathFinder.find_spec(module, list(where)) is None:
            yield Problem(
                f"no-{module.replace('_', '-')}",
                f"robustbench imports {module}, which is not installed: {reason}",
                "nothing to do: robusteval puts a stand-in in its place while it imports robustbench",
                handled=True,
            )


def _foreign_tests(robustbench: Distribution) -> Iterator[Problem]:
    if any(line.startswith("tests/") for line in (robustbench.read_text("RECORD") or "").splitlines()):
        yield Problem(
            "robustbench-tests",
            f"robustbench {robustbench.version} installs a top-level package called tests",
            "nothing to do here; in your own project run pytest with --import-mode=importlib",
            handled=True,
        )


def _unmet_pins(distribution: Distribution, where: Sequence[str]) -> Iterator[Problem]:
    name = distribution.metadata["Name"]
    for requirement in distribution.requires or ():
        pin = re.match(r"([\w.-]+)\s*\(?\s*(==|~=)\s*([\w.]+)", requirement)
        if pin is None or "extra ==" in requirement:
            continue
        package, operator, wanted = pin.groups()
        installed = _distribution(package, where)
        if installed is None or _fits(installed.version, operator, wanted):
            continue
        yield Problem(
            f"{name.lower()}-pins-{package.lower()}",
            f"{name} {distribution.version} asks for {package}{operator}{wanted}, installed is {installed.version}",
            "nothing to do: the parts that robusteval uses do not depend on it",
            handled=True,
        )


def _fits(version: str, operator: str, wanted: str) -> bool:
    if operator == "==":
        return version == wanted
    return version.split(".")[: wanted.count(".")] == wanted.split(".")[:-1]
