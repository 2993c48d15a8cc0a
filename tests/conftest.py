"""What all tests share: one CPU thread, reproducible examples, and where optional real data is."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch is imported anywhere: on tensors this small a second thread costs more than it brings.
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import pytest

hypothesis.settings.register_profile("robusteval", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("robusteval")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data and weights; tests that ask for it are skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("ROBUSTEVAL_SHARED", default))
    if not (folder / "data").is_dir():
        pytest.skip(f"{folder} has no data; set ROBUSTEVAL_SHARED to run this test")
    return folder
