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
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robusteval.models.checkpoint_info import file_kind
from robusteval.models.packaging import packaging_problems
from robusteval.schema.errors import CheckpointError, UnknownNameError, UsageError, unknown_name

if TYPE_CHECKING:
    from robusteval.models.classifier import Classifier

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
    vars(package)["AutoAttack"] = _git_style_autoattack(reference.AutoAttack)
    found = {"autoattack": package}
    for part in _AUTOATTACK_SUBMODULES:
        found[f"autoattack.{part}"] = _import_quietly(f"pyautoattack.{part}")
        setattr(package, part, found[f"autoattack.{part}"])
    return found


def _git_style_autoattack(base: Any) -> Any:
    """The class of pyautoattack with the arguments of the repository version, which robustbench passes."""

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

    vars(module)["resource_filename"] = resource_filename
    return module


_DRIVE = "https://drive.google.com/file/d/"
_ZOO_INPUTS = {"cifar10": (10, (3, 32, 32)), "cifar100": (100, (3, 32, 32)), "imagenet": (1000, (3, 224, 224))}


def load_robustbench(model_id: str, dataset: str, threat: str, *, folder: Path) -> Classifier:
    """A model of the RobustBench zoo, in evaluation mode; it takes [0, 1] images and normalises inside.

    Args:
        model_id: name in the zoo, such as `Wong2020Fast`.
        dataset: `cifar10`, `cifar100` or `imagenet`.
        threat: `Linf`, `L2` or `corruptions`, in any case.
        folder: where weights are kept, as `DATASET/THREAT/MODEL_ID.pt`; missing ones are downloaded.

    Raises:
        UnknownNameError: the zoo has no such dataset, threat or model.
        CheckpointError: the weights cannot be downloaded, or what was downloaded is not weights.
        UsageError: robustbench cannot be imported, or torch is too old to read its files safely.
    """
    from robusteval.models.classifier import Classifier

    if _torch_version() < (2, 6):
        raise UsageError("zoo weights are pickles, which torch reads safely from version 2.6 on; upgrade torch")
    if dataset not in _ZOO_INPUTS:
        raise UnknownNameError(unknown_name("robustbench dataset", dataset, _ZOO_INPUTS))
    import_robustbench()
    zoo_name = sys.modules["robustbench.model_zoo.enums"]
    threats = {kind.value.lower(): kind for kind in zoo_name.ThreatModel}
    if threat.lower() not in threats:
        raise UnknownNameError(unknown_name("robustbench threat", threat, (kind.value for kind in threats.values())))
    kind = threats[threat.lower()]
    models = sys.modules["robustbench.model_zoo"].model_dicts[zoo_name.BenchmarkDataset(dataset)].get(kind, {})
    if model_id not in models:
        raise UnknownNameError(unknown_name("robustbench model", model_id, models) + _zoo_repair())
    folder.mkdir(parents=True, exist_ok=True)
    if not import_timm().is_model(f"{model_id.lower().replace('-', '_')}_{dataset}_{kind.value.lower()}"):
        _fetch_zoo_weights(models[model_id].get("gdrive_id"), folder / dataset / kind.value / f"{model_id}.pt")
    with robustbench_importable(), redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            network = sys.modules["robustbench.utils"].load_model(
                model_id, model_dir=folder, dataset=dataset, threat_model=kind.value
            )
        except Exception as error:
            raise CheckpointError(
                f"robustbench:{model_id}: cannot load the weights in {folder}: {_first_line(error)}{_zoo_repair()}"
            ) from error
    classes, shape = _ZOO_INPUTS[dataset]
    return Classifier(network, classes=classes, input_shape=shape, mean=(0.0,) * 3, std=(1.0,) * 3).eval()


def _torch_version() -> tuple[int, int]:
    major, minor, *_ = version("torch").split(".")
    return int(major), int(minor)


def _zoo_repair() -> str:
    """How to repair a damaged robustbench, if it is damaged, as the end of a message."""
    broken = [
        problem for problem in packaging_problems() if problem.code.startswith("robustbench-") and not problem.handled
    ]
    return "".join(f"; {problem.what}; run: {problem.fix}" for problem in broken)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _fetch_zoo_weights(drive_id: str | list[str] | None, path: Path) -> None:
    """Download what is missing and check what is there; an ensemble has one file a member."""
    if not drive_id:
        return
    parts = (
        {path: drive_id}
        if isinstance(drive_id, str)
        else {path.with_name(f"{path.name}_m{index}.pt"): part for index, part in enumerate(drive_id)}
    )
    for target, part in parts.items():
        if not target.exists():
            _download(part, target)
        _check_zoo_file(target, f"delete it, then download {_DRIVE}{part} by hand and put it there")


def _check_zoo_file(path: Path, repair: str) -> None:
    """Google Drive answers with a web page when its quota is used up, and robustbench saves that as the weights."""
    with path.open("rb") as file:
        kind = file_kind(file.read(512))
    if kind not in ("zip", "pickle"):
        raise CheckpointError(
            f"{path}: this is {'a web page' if kind == 'html' else 'not a file of weights'}; {repair}"
        )


def _download(drive_id: str, target: Path) -> None:
    utilities = sys.modules["robustbench.utils"]
    # The old copy of robustbench inside torchattacks has only the old function.
    fetch = getattr(utilities, "download_gdrive_new", None) or utilities.download_gdrive
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part")
    try:
        with redirect_stdout(sys.stderr):  # robustbench and gdown print; standard output is for results
            fetch(drive_id, str(partial))
        _check_zoo_file(partial, "Google Drive did not hand out the file")
        partial.replace(target)
    except Exception as error:
        raise CheckpointError(
            f"cannot download the weights of {target.stem}: {_first_line(error)}; without a network, put the file "
            f"{_DRIVE}{drive_id} at {target}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
