"""Where a result comes from: versions, commit, machine. Part of no hash."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from robusteval.schema.records import Provenance

PACKAGES = (
    "torch", "torchvision", "numpy", "scipy", "scikit-learn", "timm", "torchattacks", "pyautoattack", "robustbench",
    "safetensors",
)  # fmt: skip
"""Packages that numbers depend on."""


def describe_provenance(device: str, threads: int) -> Provenance:
    """Describe the running process.

    Args:
        device: the device used, in words.
        threads: CPU threads used.
    """
    commit, dirty = _git_state()
    return Provenance(
        robusteval_version=package_versions(("robusteval",)).get("robusteval", "unknown"),
        git_commit=commit,
        git_dirty=dirty,
        packages=package_versions(PACKAGES),
        python=platform.python_version(),
        platform=f"{platform.system()}-{platform.machine()}",
        device=device,
        threads=threads,
    )


def package_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of those packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def _git_state() -> tuple[str | None, bool | None]:
    """Commit and dirtiness of the checkout that this package runs from; (None, None) for an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None, None
    try:
        commit = _git(root, "rev-parse", "HEAD").strip()
        return commit, bool(_git(root, "status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603
        ["git", "-C", str(root), *arguments],  # noqa: S607
        capture_output=True, text=True, timeout=10, check=True,
    )  # fmt: skip
    return done.stdout
