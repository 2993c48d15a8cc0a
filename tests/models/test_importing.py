from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from robusteval.models.build import build_classifier
from robusteval.models.checkpoint_info import CheckpointInfo, inspect_checkpoint
from robusteval.models.checkpoints import load_checkpoint, save_checkpoint
from robusteval.models.classifier import Classifier
from robusteval.models.importing import import_weights
from robusteval.schema.errors import CheckpointError, UsageError
from robusteval.schema.types import Component

SMALL = Component(name="small-cnn", params={"width": 2})
INFO = CheckpointInfo(
    architecture=SMALL, classes=3, class_names=("a", "b", "c"), input_shape=(1, 8, 8), mean=(0.4,), std=(0.3,)
)


def _model() -> Classifier:
    return build_classifier(SMALL, classes=3, input_shape=(1, 8, 8), mean=(0.4,), std=(0.3,), seed=1).eval()


def _state() -> dict[str, Any]:
    return dict(_model().network.state_dict())


def _expected() -> bytes:
    return save_checkpoint(_model(), SMALL, class_names=("a", "b", "c"))


def test_bare_safetensors_become_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_file(_state(), path)
    assert import_weights(path, INFO) == _expected()


def test_missing_parameters_of_the_architecture_are_filled_in(tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_file(
        build_classifier(
            Component(name="small-cnn"), classes=3, input_shape=(1, 8, 8), mean=(0.4,), std=(0.3,), seed=1
        ).network.state_dict(),
        path,
    )
    data = import_weights(path, INFO.model_copy(update={"architecture": Component(name="small-cnn")}))
    assert inspect_checkpoint(data).architecture.params == {"width": 16}


def test_prefixes_are_stripped_renamed_and_batch_counters_filled_in(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    other = {
        "module." + name.replace("linear.", "fc.").replace("layer1.", "stages.0."): tensor
        for name, tensor in _state().items()
        if not name.endswith("num_batches_tracked")
    }
    save_file(other, path)
    assert import_weights(path, INFO, rename={"fc": "linear", "stages.0": "layer1"}) == _expected()


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
def test_a_pytorch_file_is_converted(tmp_path: Path, wrap: Any) -> None:
    path = tmp_path / "old.pth"
    torch.save(wrap(_state()), path)
    assert import_weights(path, INFO) == _expected()


def test_a_named_entry_of_a_pytorch_file_is_used(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"last": _state(), "best": {}, "epoch": 3}, path)
    assert import_weights(path, INFO, entry="last") == _expected()
    with pytest.raises(CheckpointError, match="has no entry 'ema'; it has: last, best, epoch"):
        import_weights(path, INFO, entry="ema")
    with pytest.raises(CheckpointError, match="not tensors: last, best, epoch"):
        import_weights(path, INFO)


class _Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", [2, 4])
def test_code_inside_a_pickle_does_not_run(tmp_path: Path, protocol: int) -> None:
    path, target = tmp_path / "evil.pth", tmp_path / "created"
    path.write_bytes(pickle.dumps({"weight": _Payload(target)}, protocol=protocol))
    with pytest.raises(CheckpointError, match="cannot be read safely"):
        import_weights(path, INFO)
    torch.save({"weight": _Payload(target)}, path)
    with pytest.raises(CheckpointError, match="cannot be read safely"):
        import_weights(path, INFO)
    assert not target.exists()


@pytest.mark.parametrize("kept", [0, 3, 100, 1000, -1])
@pytest.mark.parametrize("name", ["m.pth", "m.safetensors"])
def test_truncated_files_are_named(tmp_path: Path, name: str, kept: int) -> None:
    path = tmp_path / name
    torch.save(_state(), path) if name == "m.pth" else save_file(_state(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=name):
        import_weights(path, INFO)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pth: cannot read the weights"):
        import_weights(tmp_path / "none.pth", INFO)


def test_weights_that_do_not_fit_are_named_with_the_first_differences(tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_file({"fc.weight": torch.zeros(3, 2)}, path)
    with pytest.raises(CheckpointError, match=r"conv1\.weight is missing; bn1\.weight is missing; .* more"):
        import_weights(path, INFO)


def test_two_tensors_that_map_to_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_file(_state() | {"module.linear.bias": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"gives the name 'linear\.bias' to two tensors"):
        import_weights(path, INFO)


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown architecture 'resnet21'"):
        import_weights(tmp_path / "x", INFO.model_copy(update={"architecture": Component(name="resnet21")}))


@pytest.mark.shared
@pytest.mark.parametrize("name", ["resnet20", "resnet32", "resnet44", "resnet56"])
def test_published_cifar_10_weights_load(shared: Path, name: str) -> None:
    path = shared / "models" / f"{name}-cifar10.safetensors"
    info = CheckpointInfo(
        architecture=Component(name=name),
        classes=10,
        input_shape=(3, 32, 32),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    model, _ = load_checkpoint(import_weights(path, info), source=str(path))
    stored = load_file(path)
    state = model.network.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in stored.items())
    logits = model(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert torch.isfinite(logits).all()
