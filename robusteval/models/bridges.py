"""Bridges to timm, torchattacks, pyautoattack and robustbench: every packaging shim of the project is here.

Nothing is imported before it is asked for. What is wrong with an installation, and how to repair it, is found by
`models.packaging`, which imports none of these packages.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from robusteval.schema.errors import UsageError

_AUTOATTACK_PARTS = ("autoattack", "autopgd_base", "checks", "fab_base", "fab_projections", "fab_pt", "other_utils")
_AUTOATTACK_SUBMODULES = (*_AUTOATTACK_PARTS, "square", "state")


def _import_quietly(name: str) -> Any:
    """Import a third-party module without the warnings it raises about its own dependencies."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UsageError(
            f"cannot import {name}: {error}; run: pip install --force-reinstall --no-deps {package} "
            f"(robusteval doctor shows more)"
        ) from error


def import_timm() -> Any:
    """The `timm` package.

    Raises:
        UsageError: it cannot be imported.
    """
    return _import_quietly("timm")


def import_torchattacks() -> Any:
    """The `torchattacks` package.

    Raises:
        UsageError: it cannot be imported.
    """
    return _import_quietly("torchattacks")


def import_pyautoattack() -> Any:
    """The `pyautoattack` package, the reference AutoAttack.

    Raises:
        UsageError: it cannot be imported.
    """
    return _import_quietly("pyautoattack")


@contextmanager
def robustbench_importable() -> Iterator[None]:
    """Inside, `import robustbench` works although two of the modules that it imports exist under other names only.

    robustbench imports `autoattack` (its dependency is packaged as `pyautoattack`) and `pkg_resources` (gone from
    setuptools 82). Stand-ins are installed for those that are really missing, and removed on exit.
    """
    stand_ins: dict[str, types.ModuleType] = {}
    if not _exists("autoattack"):
        stand_ins |= _autoattack_stand_ins()
    if not _exists("pkg_resources"):
        stand_ins["pkg_resources"] = _pkg_resources_stand_in()
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def import_robustbench() -> Any:
    """The `robustbench` package with `robustbench.utils` and its zoo loaded.

    Raises:
        UsageError: it cannot be imported even with the stand-ins.
    """
    with robustbench_importable():
        package = _import_quietly("robustbench")
        _import_quietly("robustbench.utils")
    return package


def _exists(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


def _autoattack_stand_ins() -> dict[str, types.ModuleType]:
    reference = import_pyautoattack()
    package = types.ModuleType("autoattack", "Stand-in for the unpackaged `autoattack`, backed by pyautoattack.")
    package.__path__ = []
    package.AutoAttack = _git_style_autoattack(reference.AutoAttack)  # type: ignore[attr-defined]
    found = {"autoattack": package}
    for part in _AUTOATTACK_SUBMODULES:
        found[f"autoattack.{part}"] = _import_quietly(f"pyautoattack.{part}")
        setattr(package, part, found[f"autoattack.{part}"])
    return found


def _git_style_autoattack(base: Any) -> Any:
    """pyautoattack's class with the arguments of the repository version, which robustbench passes."""

    class AutoAttack(base):  # type: ignore[misc]
        def __init__(self, model: Any, norm: str = "Linf", eps: float = 0.3, **options: Any) -> None:
            for gone in ("verbose", "is_tf_model", "log_path"):
                options.pop(gone, None)
            chosen = list(options.pop("attacks_to_run", None) or ())
            options.setdefault("device", "cuda")
            super().__init__(model, norm=norm, eps=eps, attacks=chosen or None, **options)

        def run_standard_evaluation(
            self, images: Any, labels: Any, bs: int = 250, return_labels: bool = False, state_path: Path | None = None
        ) -> Any:
            adversarial, predicted = super().run_standard_evaluation(
                images, labels, batch_size=bs, state_path=state_path
            )
            return (adversarial, predicted) if return_labels else adversarial

    return AutoAttack


def _pkg_resources_stand_in() -> types.ModuleType:
    module = types.ModuleType("pkg_resources", "Stand-in for the one function of pkg_resources that robustbench calls.")

    def resource_filename(package: str, resource: str) -> str:
        """Path of a file beside a module or inside a package."""
        spec = importlib.util.find_spec(package)
        anchor = package if spec is not None and spec.submodule_search_locations else package.rpartition(".")[0]
        return str(files(anchor) / resource)

    module.resource_filename = resource_filename  # type: ignore[attr-defined]
    return module
