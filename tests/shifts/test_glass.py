from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from robusteval.schema.types import Component
from robusteval.shifts.base import build_shift
from robusteval.shifts.draws import Draws, as_numbers
from robusteval.shifts.filters import Gaussian
from robusteval.shifts.glass import copy_sources
from robusteval.shifts.tables import CONSTANTS


def one_pass(image: np.ndarray, choices: np.ndarray, reach: int) -> None:
    """The published loop on an image (H, W, 3) of its own, with the swap through views that is none."""
    height, width = choices.shape
    for h in range(height - reach, reach, -1):
        for w in range(width - reach, reach, -1):
            dy, dx = divmod(int(choices[h, w]), 2 * reach)
            other = h + dy - reach, w + dx - reach
            image[h, w], image[other] = image[other], image[h, w]


@pytest.mark.parametrize("reach", [1, 2, 4])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (21, 40)])
def test_one_gather_is_the_published_loop(reach: int, height: int, width: int) -> None:
    generator = np.random.default_rng(reach)
    choices = generator.integers(0, (2 * reach) ** 2, size=(2, height, width))
    images = generator.integers(0, 256, size=(2, height, width, 3), dtype=np.uint8)
    sources = copy_sources(torch.from_numpy(choices).to(torch.int32), reach).numpy()
    found = images.reshape(-1, 3)[sources].reshape(images.shape)
    for image, choice in zip(images, choices, strict=True):
        one_pass(image, choice, reach)
    assert (found == images).all()


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("preset", ["imagenet-c", "cifar10-c"])
def test_glass_blur_is_the_published_chain_with_our_draws(preset: str, severity: int, small_scenes: Tensor) -> None:
    images, keys = small_scenes[:2], torch.tensor([3, -9])
    shift = build_shift(Component(name="glass_blur", params={"preset": preset, "severity": severity}))
    sigma, reach, passes = CONSTANTS[preset]["glass_blur"][severity - 1]
    blur, draws = Gaussian(sigma), Draws(keys, 4, f"shift/glass_blur-{severity}")
    work = blur(images).permute(0, 2, 3, 1).contiguous().numpy()
    for number in range(passes):
        ranks = as_numbers(draws.halfwords((32, 32), f"pass {number}")).numpy()
        for image, own in zip(work, ranks, strict=True):
            one_pass(image, own * (2 * reach) ** 2 // 2**16, reach)
    expected = blur(torch.from_numpy(work).permute(0, 3, 1, 2).contiguous())
    assert torch.equal(shift(images, keys=keys, seed=4), expected)
