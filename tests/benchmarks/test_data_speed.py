"""What real data costs: decoding PACS once, and the share of a training step that is not waiting for images.

Run with `pytest tests/benchmarks --benchmark-only -k data`. `extra_info` holds `case`; for `decode` the images, their
`pixels` and wall-clock `seconds` from an empty cache, digests of all files included; for `step` the share of the
wall-clock time of training steps that is spent in the model (`in_model`).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from robusteval.data.batches import DeviceSet
from robusteval.data.multi_domain import MultiDomainParams, Pacs
from robusteval.models.build import build_network
from robusteval.schema.types import Component

pytestmark = pytest.mark.shared

PIXELS = 112
BATCH = 32
STEPS = 6


def pacs(shared: Path, cache: Path) -> Pacs:
    place = str(shared / "data" / "pacs")
    return Pacs(MultiDomainParams(path=place, size=PIXELS, cache=str(cache), sources=("photo",)))


def test_data_pacs_is_decoded_once(benchmark: Any, shared: Path, tmp_path: Path) -> None:
    data = pacs(shared, tmp_path)

    def decode() -> int:
        return sum(len(data.load(domain, "test")) for domain in data.domains)

    assert benchmark.pedantic(decode, rounds=1, iterations=1) > 8000
    benchmark.extra_info.update(
        case="decode", images=9991, pixels=PIXELS, seconds=round(float(benchmark.stats["max"]), 2)
    )


@pytest.mark.filterwarnings("ignore")
def test_data_is_never_waited_for(benchmark: Any, shared: Path, tmp_path: Path) -> None:
    images = DeviceSet(pacs(shared, tmp_path).load("photo", "train"))
    network = build_network(Component(name="timm/tf_efficientnet_lite0"), 7, (3, PIXELS, PIXELS), seed=0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def train() -> float:
        waited, begin = 0.0, time.perf_counter()
        batches = images.shuffled(BATCH, seed=0, epoch=0)
        for _ in range(STEPS):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            optimizer.zero_grad()
            cross_entropy(network(batch.images), batch.labels).backward()
            optimizer.step()
        return 1.0 - waited / (time.perf_counter() - begin)

    share = benchmark.pedantic(train, rounds=1, iterations=1, warmup_rounds=1)
    benchmark.extra_info.update(case="step", pixels=PIXELS, batch=BATCH, in_model=round(share, 4))
    assert share > 0.5
