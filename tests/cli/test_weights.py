from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from robusteval.models.build import build_network
from robusteval.models.checkpoints import load_checkpoint
from robusteval.schema.types import Component

Command = Callable[..., tuple[int, str, str]]
ARCHITECTURE = Component(name="small-cnn", params={"width": 4})
OPTIONS = ("--architecture", "small-cnn", "--params", '{"width": 4}', "--classes", "10", "--image-size", "16")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    state = build_network(ARCHITECTURE, 10, (3, 16, 16), seed=3).state_dict()
    path = tmp_path / "foreign.pth"
    torch.save({"state_dict": {f"module.net.{name}": tensor for name, tensor in state.items()}}, path)
    return path


def test_foreign_weights_become_a_checkpoint(command: Command, foreign: Path, tmp_path: Path) -> None:
    out = tmp_path / "ours.safetensors"
    arguments = (*OPTIONS, "--strip", "module.", "--strip", "net.", "--mean", "0.1,0.2,0.3", "--out", out)
    code, said, err = command("import-weights", foreign, *arguments)
    assert (code, err) == (0, "")
    assert str(out) in said
    model, info = load_checkpoint(out.read_bytes(), source=str(out))
    assert info.mean == (0.1, 0.2, 0.3)
    assert info.std == (1.0, 1.0, 1.0)
    expected = build_network(ARCHITECTURE, 10, (3, 16, 16), seed=3).state_dict()
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--out", "x.pt"), "give it that ending"),
        (("--out", "x.safetensors", "--mean", "0.5"), "needs 3 numbers"),
        (("--out", "x.safetensors", "--std", "a,b,c"), "needs 3 numbers"),
        (("--out", "x.safetensors", "--std", "0,1,1"), "greater than 0"),
        (("--out", "x.safetensors", "--params", "[1]"), "is not a JSON object"),
        (("--out", "x.safetensors", "--params", "[" * 100_000), "is not a JSON object"),
        (("--out", "foreign.pth/x.safetensors", "--strip", "module.", "--strip", "net."), "cannot be written"),
        (("--out", "x.safetensors", "--rename", "fc"), "is not OLD=NEW"),
        (("--out", "x.safetensors", "--class-names", "a,b"), "2 class names for 10 classes"),
        (("--out", "x.safetensors", "--entry", "ema"), "no entry 'ema'"),
        (("--out", "x.safetensors", "--architecture", "smal-cnn"), "did you mean 'small-cnn'"),
    ],
)
def test_a_mistake_is_one_line(
    command: Command,
    foreign: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command("import-weights", foreign, *OPTIONS, *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert says in err
    assert not Path("x.safetensors").exists()


def test_an_unusual_pickle_protocol_is_one_line_and_no_warning(command: Command, foreign: Path, tmp_path: Path) -> None:
    state = torch.load(foreign, weights_only=True)["state_dict"]
    torch.save(state, foreign, pickle_protocol=4)
    code, _, err = command("import-weights", foreign, *OPTIONS, "--out", tmp_path / "x.safetensors")
    assert code == 2
    assert err.count("\n") == 1
    assert "cannot be read safely" in err
