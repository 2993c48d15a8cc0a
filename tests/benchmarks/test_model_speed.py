"""What one batch costs: the ready benchmarks that a user runs on an own model, here on two packaged architectures.

Run with `pytest tests/benchmarks --benchmark-only -k model_speed`; `extra_info` holds `images_per_second`.
"""

from __future__ import annotations

from typing import Any

import pytest

from robusteval.models.build import build_network
from robusteval.schema.types import Component
from robusteval.testing import benchmarks

SHAPE = (3, 32, 32)
PASSES = {
    "forward": benchmarks.forward,
    "forward_backward": benchmarks.forward_backward,
    "apgd_step": benchmarks.apgd_step,
}


@pytest.mark.parametrize("architecture", ["small-cnn", "resnet20"])
@pytest.mark.parametrize("kind", PASSES)
def test_model_speed(benchmark: Any, kind: str, architecture: str) -> None:
    PASSES[kind](
        benchmark, build_network(Component(name=architecture), 10, SHAPE, seed=0), SHAPE, batch=32, device="cpu"
    )
    assert benchmark.extra_info["images_per_second"] > 0


@pytest.mark.parametrize("name", ["gaussian_noise", "fog", "jpeg_compression"])
def test_model_speed_of_corruptions(benchmark: Any, name: str) -> None:
    benchmarks.corruption_batch(benchmark, name, SHAPE, device="cpu")
    assert benchmark.extra_info["images_per_second"] > 0
