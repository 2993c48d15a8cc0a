"""Two processes train the model that one process trains."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robusteval.data.batches import Rows
from robusteval.methods.parallel import ALONE, Ranks, drawn_like
from robusteval.methods.resolve import build_method
from robusteval.methods.shared_batch_norm import batch_norm_over
from robusteval.methods.trainer import train
from robusteval.schema.errors import UsageError
from robusteval.schema.types import Component

WORKER = Path(__file__).with_name("rank_worker.py")
TOLERANCE = 1e-5
"""Largest difference of a weight or statistic: two processes add the same floats in another order than one."""


def load_worker() -> Any:
    spec = importlib.util.spec_from_file_location("rank_worker", WORKER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


worker = load_worker()
Found = tuple[dict[str, Tensor], dict[str, Any]]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(index), "2", str(folder / "meeting"), str(folder)], env=environment
        )
        for index in range(2)
    ]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    found = []
    for index in range(2):
        file = folder / f"{index}.safetensors"
        with safetensors.safe_open(file, "pt") as opened:
            documents = json.loads(opened.metadata()["documents"])
        found.append((safetensors.torch.load_file(file), documents))
    return found


@pytest.fixture(scope="module")
def one() -> Found:
    """What one process found."""
    found: Found = worker.everything(ALONE)
    return found


@pytest.mark.parametrize("name", worker.RUNS)
def test_two_processes_end_with_the_weights_of_one(name: str, one: Found, two: list[Found]) -> None:
    keys = [key for key in one[0] if key.startswith(f"{name}/")]
    differences = {key: float((one[0][key].double() - two[0][0][key].double()).abs().max()) for key in keys}
    assert max(differences.values()) <= TOLERANCE, differences
    assert len(keys) > 6


@pytest.mark.parametrize("name", worker.RUNS)
def test_passes_and_the_selected_epoch_are_those_of_one_and_accuracies_too(
    name: str, one: Found, two: list[Found]
) -> None:
    alone, shared = one[1][name], two[0][1][name]
    assert {key: shared[key] for key in ("budget", "selection", "epoch")} == {
        key: alone[key] for key in ("budget", "selection", "epoch")
    }
    for before, after in zip(alone["history"], shared["history"], strict=True):
        assert after == pytest.approx(before, abs=TOLERANCE)


def test_both_processes_know_the_same_to_the_last_bit(two: list[Found]) -> None:
    first, second = two
    assert first[0].keys() == second[0].keys()
    assert all(torch.equal(first[0][key], second[0][key]) for key in first[0])
    assert first[1] == second[1]


def test_a_stopped_run_goes_on_to_the_same_weights_and_budget(two: list[Found]) -> None:
    tensors, documents = two[0]
    keys = [key.removeprefix("resumed/") for key in tensors if key.startswith("resumed/")]
    assert len(keys) > 6
    assert all(torch.equal(tensors[f"resumed/{key}"], tensors[f"linf/{key}"]) for key in keys)
    assert documents["resumed"] == documents["linf"]


@given(st.integers(1, 60), st.integers(1, 9))
def test_rows_cover_a_batch_once(n: int, count: int) -> None:
    rows = [list(range(n)[Ranks(index, count).rows(n)]) for index in range(count)]
    assert [row for own in rows for row in own] == list(range(n))


def test_processes_draw_together_what_one_draws() -> None:
    like = torch.zeros(10, 3)
    torch.manual_seed(5)
    expected = drawn_like(like, None, lambda whole, generator: whole.normal_(generator=generator))
    parts = []
    for first, end in ((0, 3), (3, 10)):
        rows = Rows(first, 10, torch.Generator().manual_seed(5))
        parts.append(drawn_like(like[first:end], rows, lambda whole, generator: whole.normal_(generator=generator)))
    assert torch.equal(torch.cat(parts), expected)


def fit(method: str, ranks: Ranks, **params: Any) -> None:
    train(
        build_method(Component(name=method, params=params)),
        model=worker.network(), train=worker.images(17, 1), validation=worker.images(8, 2), seed=0, ranks=ranks,
    )  # fmt: skip


def test_what_cannot_be_divided_is_refused_before_any_step() -> None:
    with pytest.raises(UsageError, match="cannot be divided among 2 processes"):
        fit("sam", Ranks(0, 2), epochs=1)
    with pytest.raises(UsageError, match=r"a batch of 3 examples cannot be divided among 4 processes.*drop_last"):
        fit("erm", Ranks(0, 4), epochs=1, batch_size=7)
    with pytest.raises(UsageError, match="a batch of 2 examples cannot be divided among 3"):
        fit("erm", Ranks(0, 3), iterations=4, batch_size=2)


class OwnNorm(nn.BatchNorm2d):
    """A batch norm that may do anything."""


def test_only_plain_batch_norm_is_shared_and_it_is_the_same_object_afterwards() -> None:
    plain, own = nn.Sequential(nn.BatchNorm2d(3), nn.GroupNorm(1, 3)), nn.Sequential(OwnNorm(3))
    with batch_norm_over(Ranks(0, 2), plain, frozen=False):
        assert type(plain[0]) is not nn.BatchNorm2d and isinstance(plain[0], nn.BatchNorm2d)
    assert type(plain[0]) is nn.BatchNorm2d
    with pytest.raises(UsageError, match="layer '0' is a OwnNorm"), batch_norm_over(Ranks(0, 2), own, frozen=False):
        pass
    for ranks, frozen in ((ALONE, False), (Ranks(0, 2), True)):
        with batch_norm_over(ranks, own, frozen=frozen):
            assert type(own[0]) is OwnNorm
