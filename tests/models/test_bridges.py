from __future__ import annotations

import importlib.util
import logging
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from robusteval.models.bridges import (
    import_pyautoattack,
    import_robustbench,
    import_timm,
    import_torchattacks,
    load_robustbench,
    robustbench_importable,
)
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import CheckpointError, UnknownNameError, UsageError


def test_packages_come_in_without_warnings() -> None:
    assert import_timm().is_model("resnet18")
    assert import_torchattacks().PGD
    assert import_pyautoattack().AutoAttack
    assert import_robustbench().__name__ == "robustbench"


def test_loading_the_bridges_imports_none_of_the_packages() -> None:
    code = (
        "import sys, robusteval.models.bridges;"
        "sys.exit(bool({'torch', 'timm', 'torchattacks', 'robustbench', 'pyautoattack'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_package_that_cannot_be_imported_is_named_with_the_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(UsageError, match=r"cannot import torchattacks: .* pip install --force-reinstall --no-deps"):
        import_torchattacks()


@pytest.mark.skipif(importlib.util.find_spec("autoattack") is not None, reason="the real autoattack is installed")
def test_stand_ins_exist_only_inside_the_context() -> None:
    with robustbench_importable():
        import autoattack
        from autoattack.state import EvaluationState

        assert EvaluationState is sys.modules["pyautoattack.state"].EvaluationState
        with robustbench_importable():
            assert sys.modules["autoattack"] is autoattack
        assert sys.modules["autoattack"] is autoattack
    assert not [name for name in sys.modules if name.partition(".")[0] == "autoattack"]


@pytest.mark.skipif(importlib.util.find_spec("pkg_resources") is not None, reason="the real pkg_resources is installed")
def test_the_resource_stand_in_finds_files_of_packages_and_beside_modules() -> None:
    with robustbench_importable():
        import pkg_resources

        beside = pkg_resources.resource_filename("json.decoder", "scanner.py")
        inside = pkg_resources.resource_filename("json", "scanner.py")
    assert beside == inside
    assert Path(inside).is_file()
    assert "pkg_resources" not in sys.modules


def test_modules_that_are_there_are_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    there = type(sys)("autoattack")
    monkeypatch.setitem(sys.modules, "autoattack", there)
    with robustbench_importable():
        assert sys.modules["autoattack"] is there
    assert sys.modules["autoattack"] is there


class _Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(images.flatten(1))
        return logits


@pytest.mark.skipif(importlib.util.find_spec("autoattack") is not None, reason="the real autoattack is installed")
def test_the_stand_in_attack_takes_the_arguments_of_the_original() -> None:
    torch.manual_seed(0)
    network = _Linear().eval()
    images, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    with robustbench_importable():
        from autoattack import AutoAttack

        attack = AutoAttack(
            network, norm="Linf", eps=0.1, version="custom", attacks_to_run=["apgd-ce"], device="cpu", seed=0,
            verbose=False, log_path=None, is_tf_model=False,
        )  # fmt: skip
        logging.getLogger("auto-attack").setLevel(logging.ERROR)
        adversarial = attack.run_standard_evaluation(images, labels, bs=3)
        again, predicted = attack.run_standard_evaluation(images, labels, bs=3, return_labels=True)
    assert adversarial.shape == again.shape == images.shape
    assert (adversarial - images).abs().max() <= 0.1 + 1e-6
    assert predicted.shape == labels.shape


@pytest.mark.parametrize(
    ("model", "dataset", "threat", "message"),
    [
        ("Wong2020Fas", "cifar10", "Linf", "unknown robustbench model 'Wong2020Fas'; did you mean 'Wong2020Fast'"),
        ("Wong2020Fast", "cifar11", "Linf", "unknown robustbench dataset 'cifar11'; did you mean 'cifar10'"),
        ("Wong2020Fast", "cifar10", "L7", "unknown robustbench threat 'L7'"),
    ],
)
def test_unknown_zoo_names_are_named(tmp_path: Path, model: str, dataset: str, threat: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        load_robustbench(model, dataset, threat, folder=tmp_path)


def test_no_network_is_named_with_the_place_for_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("network is unreachable")

    import_robustbench()
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(CheckpointError, match=r"cannot download the weights of Wong2020Fast: .* put the file .* at "):
        load_robustbench("Wong2020Fast", "cifar10", "linf", folder=tmp_path)
    assert not list((tmp_path / "cifar10" / "Linf").iterdir())


def test_a_web_page_instead_of_weights_is_named_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import_robustbench()

    def answer(drive_id: str, path: str) -> None:
        sys.stdout.write("Downloading, as robustbench says on standard output")
        Path(path).write_text("<html>quota exceeded</html>")

    monkeypatch.setattr(sys.modules["robustbench.utils"], "download_gdrive_new", answer)
    with pytest.raises(CheckpointError, match=r"cannot download the weights of Wong2020Fast: .* this is a web page"):
        load_robustbench("Wong2020Fast", "cifar10", "Linf", folder=tmp_path)
    assert capsys.readouterr().out == ""
    assert not list((tmp_path / "cifar10" / "Linf").iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>quota exceeded</html>", "is a web page; delete it, then download"),
        (b"", "not a file of weights"),
        (b"PK\x03\x04 and then nothing of use", "cannot load the weights"),
    ],
)
def test_a_download_that_is_no_weights_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "cifar10" / "Linf" / "Wong2020Fast.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_robustbench("Wong2020Fast", "cifar10", "Linf", folder=tmp_path)


def test_a_zoo_model_becomes_a_classifier(tmp_path: Path) -> None:
    """The zoo's own architecture with random weights, in the place and format of a download."""
    import_robustbench()
    network = sys.modules["robustbench.model_zoo"].model_dicts
    enums = sys.modules["robustbench.model_zoo.enums"]
    entry = network[enums.BenchmarkDataset.cifar_10][enums.ThreatModel.Linf]["Wong2020Fast"]
    torch.manual_seed(0)
    original = entry["model"]().eval()
    path = tmp_path / "cifar10" / "Linf" / "Wong2020Fast.pt"
    path.parent.mkdir(parents=True)
    torch.save({f"module.{name}": tensor for name, tensor in original.state_dict().items()}, path)
    model = load_robustbench("Wong2020Fast", "cifar10", "Linf", folder=tmp_path)
    images = torch.rand(16, 3, 32, 32)
    assert isinstance(model, Classifier)
    assert not model.training
    with torch.no_grad():
        assert torch.equal(model(images), original(images))
