"""The command that looks at the environment: doctor."""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import typer

from robusteval.cli.options import DEFAULT_STORE, JsonOption, StoreOption, examples

LOW_DISK_GB = 1.0


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(epilog=examples("robusteval doctor", "robusteval doctor --store /data/results --json"))(doctor)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what.
        status: `ok`, `warning` or `problem`.
        detail: what was found.
        fix: what to do about it; empty if nothing.
    """

    check: str
    status: Literal["ok", "warning", "problem"]
    detail: str
    fix: str = ""


def doctor(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Look for trouble in the environment.

    Exit 1 if something is broken; each problem comes with the way to mend it.
    """
    from robusteval.cli import render

    findings = [_python(), *_torch(), *_packages(), *_store(store)]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        rows = [[finding.status, finding.check, finding.detail] for finding in findings]
        fixes = [f"{finding.check}: {finding.fix}" for finding in findings if finding.fix]
        render.print_table(["", "check", "found"], rows, fixes)
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(1)


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", "ok", found)


def _torch() -> list[Finding]:
    from importlib import import_module

    try:
        torch = import_module("torch")
    except ImportError as error:
        return [Finding("torch", "problem", str(error), "pip install torch")]
    findings = [Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} CPU threads")]
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        findings.append(Finding("device", "ok", "cuda: " + ", ".join(names)))
    else:
        findings.append(Finding("device", "ok", "cpu only"))
    return findings


def _packages() -> list[Finding]:
    from robusteval.models.packaging import packaging_problems
    from robusteval.store.provenance import PACKAGES, package_versions

    versions = package_versions(PACKAGES)
    missing = [name for name in PACKAGES if name not in versions and name != "torchvision"]
    listed = ", ".join(f"{name} {number}" for name, number in versions.items())
    findings = [Finding("packages", "ok", listed)]
    if missing:
        findings.append(
            Finding("packages", "problem", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
        )
    for problem in packaging_problems():
        status: Literal["ok", "problem"] = "ok" if problem.handled else "problem"
        findings.append(Finding(problem.code, status, problem.what, problem.fix))
    return findings


def _store(uri: str) -> list[Finding]:
    from robusteval.schema.errors import StoreError, UnreachableError
    from robusteval.store.store import Store

    place = Store.open(uri)
    try:
        place.check()
        if not place.uri.startswith("file:"):
            place.check_writable()
            return [Finding("store", "ok", f"{place.uri} can be read and written")]
    except (StoreError, UnreachableError) as error:
        return [Finding("store", "problem", str(error), "choose another place with --store or ROBUSTEVAL_STORE")]
    folder = place.local
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".robusteval-doctor-"):
            pass
    except OSError as error:
        fix = "choose another folder with --store or ROBUSTEVAL_STORE"
        return [Finding("store", "problem", f"{folder} cannot be written: {error.strerror}", fix)]
    free = shutil.disk_usage(folder).free / 1e9
    disk = f"{free:.1f} GB free at {folder}"
    kept = Finding("store", "ok", f"{place.local}{'' if Path(place.local).exists() else ' (will be made)'}")
    if free < LOW_DISK_GB:
        return [kept, Finding("disk", "warning", disk, "free some space, or move the store")]
    return [kept, Finding("disk", "ok", disk)]
