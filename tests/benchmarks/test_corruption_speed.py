"""How much faster the engine corrupts than `imagecorruptions`, as a ratio in one process on the same images.

Run with `pytest tests/benchmarks --benchmark-only -k corruption`. Photographs and drawings at 32 and at 224 pixels, the
same constants (preset `imagenet-c`, severity 3) on both sides, turn by turn, on one thread each; process CPU time is
compared, so a second core, which ours uses and the reference does not, counts for nothing. `extra_info` holds `case`
(a corruption, or `all15` for the sum of the 15 common ones), `pixels`, `speedup`, and milliseconds an image of both.
The reference is the published package with its dead calls given back: see `imagecorruptions` in the root conftest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from robusteval.models.build import build_network
from robusteval.schema.types import Component
from robusteval.shifts.tables import COMMON, VALIDATION
from robusteval.testing import benchmarks

pytestmark = [pytest.mark.shared, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SEVERITY = 3
COUNTS = {32: 128, 224: 8}
"""Images at each size; the reference gets as many at 32 pixels, half as many at 224 and one for glass blur."""
ROUNDS = 3


@pytest.fixture(scope="module", params=sorted(COUNTS))
def pictures(request: pytest.FixtureRequest, shared: Path) -> Tensor:
    """(N, 3, S, S) uint8 from all four domains of PACS."""
    side = request.param
    files = sorted((shared / "data" / "pacs").rglob("*.jpg"))
    chosen = files[:: len(files) // COUNTS[side]][: COUNTS[side]]
    images = [np.asarray(Image.open(file).convert("RGB").resize((side, side))) for file in chosen]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def corrupting(name: str, images: Tensor) -> benchmarks.Work:
    return benchmarks.corrupting(name, images, severity=SEVERITY, preset="imagenet-c", device="cpu")


def milliseconds(name: str, images: Tensor, corrupt: Callable[..., Any]) -> tuple[float, float]:
    """Median time an image: ours and the reference's."""
    torch.set_num_threads(1)
    work = corrupting(name, images)
    large = images.shape[2] > 32
    some = images[: 1 if name == "glass_blur" and large else len(images) // (2 if large else 1)]
    arrays = some.permute(0, 2, 3, 1).contiguous().numpy()
    corrupting(name, images[:1])()

    def reference() -> None:
        for array in arrays:
            corrupt(array, severity=SEVERITY, corruption_name=name)

    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(seconds(work) / len(images))
        theirs.append(seconds(reference) / len(arrays))
    return 1e3 * float(np.median(ours)), 1e3 * float(np.median(theirs))


def report(benchmark: Any, case: str, images: Tensor, ours: float, theirs: float) -> None:
    benchmark.extra_info.update(
        case=case, pixels=images.shape[2], speedup=theirs / ours, ours_ms=ours, reference_ms=theirs
    )


@pytest.mark.parametrize("name", [*COMMON, *VALIDATION])
def test_corruption_speed(benchmark: Any, pictures: Tensor, imagecorruptions: Callable[..., Any], name: str) -> None:
    ours, theirs = benchmark.pedantic(milliseconds, args=(name, pictures, imagecorruptions), rounds=1, iterations=1)
    report(benchmark, name, pictures, ours, theirs)
    assert ours <= 1.3 * theirs


def test_corruption_speed_of_all_fifteen(
    benchmark: Any, pictures: Tensor, imagecorruptions: Callable[..., Any]
) -> None:
    def all_of_them() -> tuple[float, float]:
        pairs = [milliseconds(name, pictures, imagecorruptions) for name in COMMON]
        return sum(ours for ours, _ in pairs), sum(theirs for _, theirs in pairs)

    ours, theirs = benchmark.pedantic(all_of_them, rounds=1, iterations=1)
    report(benchmark, "all15", pictures, ours, theirs)
    assert theirs / ours >= (6 if pictures.shape[2] == 32 else 15)


def test_corruption_costs_less_than_a_resnet18(benchmark: Any, pictures: Tensor) -> None:
    """`speedup` is the time of a forward pass over the time of the dearest of the 15."""
    torch.set_num_threads(1)
    network = build_network(Component(name="timm/resnet18"), 10, tuple(pictures.shape[1:]), seed=0)

    def median(work: benchmarks.Work) -> float:
        work()
        return float(np.median([seconds(work) for _ in range(ROUNDS)])) / len(pictures)

    def times() -> tuple[float, float]:
        with benchmarks.forwarding(network, pictures, mean=(0.5,) * 3, std=(0.5,) * 3, device="cpu") as work:
            forward = median(work)
        return 1e3 * max(median(corrupting(name, pictures)) for name in COMMON), 1e3 * forward

    ours, forward = benchmark.pedantic(times, rounds=1, iterations=1)
    report(benchmark, "resnet18", pictures, ours, forward)
    assert ours < forward
