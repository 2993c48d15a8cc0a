"""Augmentations: pure functions of images and draws, each image by itself."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from robusteval.data import AUGMENTATIONS
from robusteval.data.augment import Augmentation, build_augmentations
from robusteval.schema.errors import UnknownNameError, UsageError
from robusteval.schema.types import Component

NEUTRAL: dict[str, dict[str, Any]] = {
    "pad-crop": {},
    "translate": {"fraction": 0.0},
    "enlarge-crop": {"p": 0.0},
    "flip": {"p": 0.0},
    "grayscale": {"p": 0.0},
    "colour-jitter": {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0},
    "random-resized-crop": {"scale": [1.0, 1.0], "ratio": [1.0, 1.0]},
}
"""One row an augmentation: parameters under which it changes nothing; `pad-crop` always can."""


def make(name: str, **params: Any) -> Augmentation[Any]:
    kind = AUGMENTATIONS.load(name)
    return kind(kind.Params.model_validate(params))


def pictures(n: int = 6, height: int = 8, width: int = 8) -> Tensor:
    return torch.rand((n, 3, height, width), generator=torch.Generator().manual_seed(3))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_augmentation_has_a_row() -> None:
    assert set(NEUTRAL) == set(AUGMENTATIONS.names())


@pytest.mark.parametrize("name", NEUTRAL)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_what_happens_to_an_image_follows_its_own_draws(name: str, data: st.DataObject) -> None:
    augmentation, images = make(name), pictures(height=10)
    draws = torch.rand((6, augmentation.draws), generator=generator(data.draw(st.integers(0, 2**31))))
    order = data.draw(st.permutations(range(6)).map(lambda order: order[: data.draw(st.integers(1, 6))]))
    whole = augmentation.apply(images, draws)
    assert torch.allclose(augmentation.apply(images[order], draws[order]), whole[order], atol=1e-6)


@pytest.mark.parametrize("name", NEUTRAL)
@settings(max_examples=20, deadline=None)
@given(extreme=st.sampled_from([0.0, 0.25, 0.5, 1.0 - 2**-24]), pixel=st.sampled_from(["dark", "bright", "any"]))
def test_pixels_stay_in_their_range_and_shape(name: str, extreme: float, pixel: str) -> None:
    augmentation = make(name)
    images = {"dark": torch.zeros(2, 3, 6, 9), "bright": torch.ones(2, 3, 6, 9), "any": pictures(2, 6, 9)}[pixel]
    out = augmentation.apply(images, torch.full((2, augmentation.draws), extreme))
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    assert float(out.min()) >= 0.0
    assert float(out.max()) <= 1.0


@pytest.mark.parametrize("name", NEUTRAL)
def test_the_input_is_left_alone_and_the_generator_decides(name: str) -> None:
    augmentation, images = make(name), pictures(12)
    before = images.clone()
    first, again, other = (augmentation(images, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(images, before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", sorted(set(NEUTRAL) - {"pad-crop"}))
def test_neutral_parameters_change_nothing(name: str) -> None:
    images = pictures()
    assert torch.allclose(make(name, **NEUTRAL[name])(images, generator()), images, atol=1e-5)


@pytest.mark.parametrize(("mode", "torch_mode"), [("zeros", "constant"), ("reflect", "reflect")])
def test_pad_crop_cuts_windows_out_of_the_padded_image(mode: str, torch_mode: str) -> None:
    images = pictures(25, 6, 7)
    places = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    out = make("pad-crop", pad=2, mode=mode).apply(images, (places + 0.5) / 5)
    padded = functional.pad(images, [2, 2, 2, 2], mode=torch_mode)
    for image, wide, (top, left) in zip(out, padded, places.tolist(), strict=True):
        assert torch.equal(image, wide[:, top : top + 6, left : left + 7])


def test_translation_moves_pixels_and_fills_with_black() -> None:
    images = pictures(1, 10, 10) + 0.01
    out = make("translate", fraction=0.2).apply(images.clamp(max=1), torch.tensor([[0.99, 0.0]]))
    assert torch.equal(out[:, :, :8, 2:], images.clamp(max=1)[:, :, 2:, :8])
    assert not out[:, :, 8:].any()
    assert not out[:, :, :, :2].any()


def test_flip_mirrors_columns() -> None:
    images = pictures(2)
    out = make("flip").apply(images, torch.tensor([[0.2], [0.8]]))
    assert np.array_equal(out[0].numpy(), np.flip(images[0].numpy(), axis=2))
    assert torch.equal(out[1], images[1])


def test_grayscale_uses_bt601_luminance() -> None:
    primaries = torch.eye(3).reshape(3, 3, 1, 1)
    out = make("grayscale", p=1.0)(primaries, generator())
    assert torch.allclose(out[:, :, 0, 0], torch.tensor([0.299, 0.587, 0.114])[:, None].expand(3, 3))


def by_pixel(change: Callable[[float, float, float], tuple[float, float, float]], image: Tensor) -> Tensor:
    colours = image.permute(1, 2, 0).reshape(-1, 3).double().tolist()
    return torch.tensor([change(*colour) for colour in colours]).reshape(*image.shape[1:], 3).permute(2, 0, 1)


@pytest.mark.parametrize("draw", [0.0, 0.3, 0.9])
def test_hue_turns_as_in_colorsys(draw: float) -> None:
    image = pictures(1)
    image[0, :, 0, 0] = 0.4
    image[0, :, 0, 1] = torch.tensor([0.7, 0.7, 0.1])

    def turned(red: float, green: float, blue: float) -> tuple[float, float, float]:
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        return colorsys.hsv_to_rgb((hue + (2 * draw - 1) * 0.4) % 1.0, saturation, value)

    jitter = make("colour-jitter", brightness=0.0, contrast=0.0, saturation=0.0, hue=0.4)
    out = jitter.apply(image, torch.tensor([[0.5, 0.5, 0.5, draw]]))
    assert torch.allclose(out[0], by_pixel(turned, image[0]), atol=1e-5)


def test_brightness_contrast_and_saturation_are_blends() -> None:
    image = pictures(1)
    grey = 0.299 * image[:, 0] + 0.587 * image[:, 1] + 0.114 * image[:, 2]
    expected = {
        "brightness": image * 1.5,
        "contrast": grey.mean() + 1.5 * (image - grey.mean()),
        "saturation": grey[:, None] + 1.5 * (image - grey[:, None]),
    }
    for property_, wanted in expected.items():
        params = NEUTRAL["colour-jitter"] | {property_: 0.5}
        out = make("colour-jitter", **params).apply(image, torch.full((1, 4), 1.0))
        assert torch.allclose(out, wanted.clamp(0, 1), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    draws=st.lists(st.floats(0, 0.99), min_size=4, max_size=4),
    height=st.integers(8, 20),
    width=st.integers(8, 20),
)
def test_resized_crops_show_a_window_of_the_drawn_area_and_shape(draws: list[float], height: int, width: int) -> None:
    x = (torch.arange(width) + 0.5) / width
    y = (torch.arange(height) + 0.5) / height
    ramps = torch.stack([x.expand(height, width), y[:, None].expand(height, width), torch.zeros(height, width)])
    crop = make("random-resized-crop", scale=[0.3, 0.6], ratio=[0.8, 1.25])
    out = crop.apply(ramps[None], torch.tensor([draws]))[0]
    area, ratio = 0.3 + 0.3 * draws[0], 0.8 * (1.25 / 0.8) ** draws[1]
    share_x = min(1.0, np.sqrt(area * ratio * height / width))
    share_y = min(1.0, np.sqrt(area / ratio * width / height))
    middle = np.s_[height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2]
    assert torch.allclose(out[0].diff(dim=1)[middle], torch.tensor(share_x / width, dtype=torch.float32), atol=1e-4)
    assert torch.allclose(out[1].diff(dim=0)[middle], torch.tensor(share_y / height, dtype=torch.float32), atol=1e-4)


def test_augmentations_are_applied_in_order() -> None:
    images = pictures(20)
    both = build_augmentations(
        [Component(name="flip", params={"p": 1.0}), Component(name="grayscale", params={"p": 1})]
    )
    expected = make("grayscale", p=1.0)(images.flip(3), generator())
    assert torch.allclose(both(images, generator()), expected)
    assert build_augmentations([])(images, generator()) is images


def test_wrong_names_and_parameters_are_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'flip'"):
        build_augmentations([Component(name="flipp")])
    with pytest.raises(UsageError, match="augmentation 'flip': parameter 'p' is 2"):
        build_augmentations([Component(name="flip", params={"p": 2})])
    with pytest.raises(UsageError, match="unknown parameter 'pads'; did you mean 'pad'"):
        build_augmentations([Component(name="pad-crop", params={"pads": 2})])
    with pytest.raises(UsageError, match="the smaller first"):
        build_augmentations([Component(name="random-resized-crop", params={"scale": [0.9, 0.1]})])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NEUTRAL)
def test_a_gpu_gives_the_same_images(name: str) -> None:
    images = pictures()
    assert torch.allclose(make(name)(images.cuda(), generator()).cpu(), make(name)(images, generator()), atol=1e-5)
