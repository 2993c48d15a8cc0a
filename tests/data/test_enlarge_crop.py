from __future__ import annotations

import torch
from torch.nn import functional

from robusteval.data.enlarge_crop import EnlargeCrop, EnlargeCropParams


def image(n: int = 4, side: int = 16) -> torch.Tensor:
    return torch.rand((n, 3, side, side), generator=torch.Generator().manual_seed(0))


def test_windows_are_cut_out_of_the_enlarged_image_from_corner_to_corner() -> None:
    images = image(2)
    draws = torch.tensor([[0.0, 0.0, 0.0], [0.9999, 0.9999, 0.0]])
    found = EnlargeCrop(EnlargeCropParams(factor=1.25, p=1.0)).apply(images, draws)
    enlarged = functional.interpolate(images, size=(20, 20), mode="bilinear", align_corners=False)
    assert torch.equal(found[0], enlarged[0, :, :16, :16])
    assert torch.equal(found[1], enlarged[1, :, 4:, 4:])


def test_only_the_asked_share_is_changed() -> None:
    images = image(400, 8)
    found = EnlargeCrop(EnlargeCropParams(p=0.5))(images, torch.Generator().manual_seed(1))
    changed = (found != images).flatten(1).any(dim=1).float().mean()
    assert 0.4 < changed < 0.6
    assert torch.equal(EnlargeCrop(EnlargeCropParams(p=0.0))(images, torch.Generator()), images)


def test_an_image_does_not_depend_on_its_batch() -> None:
    images, crop = image(6), EnlargeCrop(EnlargeCropParams())
    draws = torch.rand((6, 3), generator=torch.Generator().manual_seed(2))
    whole = crop.apply(images, draws)
    assert all(torch.equal(whole[i : i + 1], crop.apply(images[i : i + 1], draws[i : i + 1])) for i in range(6))
