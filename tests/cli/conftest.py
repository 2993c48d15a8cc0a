from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from robusteval.cli.main import run

MICRO = """\
name: micro
version: 1
summary: One row of everything.
train: {data: digits, domains: [upright], architecture: {name: small-cnn, params: {width: 4}}}
methods:
  - {method: erm, params: {epochs: 1, lr: 0.05}}
  - {method: erm, label: longer, params: {epochs: 2, lr: 0.05}}
evaluate:
  id: {examples: 20, robust_examples: 8}
  ood: {domains: [rotated], examples: 20, robust_examples: 8}
  threats:
    - {epsilon: 0.1, attacks: [fgsm]}
"""

Command = Callable[..., tuple[int, str, str]]
"""Runs a command line; gives exit code, standard output, standard error."""


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    for name in ("STORE", "DEVICE", "EXECUTOR", "JOBS"):
        monkeypatch.delenv(f"ROBUSTEVAL_{name}", raising=False)

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(word) for word in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite of two rows that takes a second."""
    path = tmp_path_factory.mktemp("suite") / "micro.yaml"
    path.write_text(MICRO)
    return path


@pytest.fixture(scope="session")
def finished(micro: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store that holds every result of `micro`; tests only read it."""
    store = tmp_path_factory.mktemp("finished") / "store"
    assert run(["run", str(micro), "--store", str(store), "--executor", "serial", "--device", "cpu", "-q"]) == 0
    yield store
