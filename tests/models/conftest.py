from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The number of threads can change float sums; the promise of bitwise equality is for one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def shared() -> Path:
    """Real data and weights, which are no part of the project."""
    folder = Path(os.environ.get("ROBUSTEVAL_SHARED", Path(__file__).parents[2].parent / "shared"))
    if not (folder / "models").is_dir():
        pytest.skip(f"no published weights in {folder} (set ROBUSTEVAL_SHARED)")
    return folder
