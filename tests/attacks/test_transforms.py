from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform
from torch import Tensor

from robusteval.attacks.transforms import Recolouring, Spatial, Transform, transform_of
from robusteval.schema.errors import UsageError
from robusteval.schema.threats import RecolourThreat, SpatialThreat
from robusteval.schema.types import Epsilon, ThreatModel

FREE = Spatial(rotation=180.0, translation=1.0)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def moved(clean: Tensor, angle: float = 0.0, down: float = 0.0, right: float = 0.0) -> Tensor:
    """One image turned by degrees and shifted by pixels."""
    height, width = clean.shape[-2:]
    parameters = torch.tensor([[angle / 180.0, down / height, right / width]], dtype=torch.float64)
    return FREE.render(clean[None], parameters)[0]


@pytest.mark.parametrize("transform", [Spatial(30.0, 0.1), Recolouring(0.1, 5)], ids=["spatial", "recolour"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 6)])
def test_zero_parameters_are_the_identity_bit_for_bit(transform: Transform, shape: tuple[int, ...]) -> None:
    clean = torch.cat([images(3, *shape), torch.zeros(1, *shape), torch.ones(1, *shape)])
    clean[0, 0, 0, 0] = 1e-30
    assert torch.equal(transform.render(clean, torch.zeros(5, *transform.shape(shape))), clean)


@pytest.mark.parametrize("side", [7, 8, 32])
@pytest.mark.parametrize("quarters", [-2, -1, 1, 2])
def test_right_angles_only_move_pixels(side: int, quarters: int) -> None:
    clean = images(3, side, side)
    assert torch.equal(moved(clean, angle=90.0 * quarters), torch.rot90(clean, quarters, dims=(1, 2)))


def test_whole_pixels_are_shifted_and_the_border_is_black() -> None:
    clean = images(2, 8, 16)
    wanted = torch.zeros_like(clean)
    wanted[:, 2:, :-4] = clean[:, :-2, 4:]
    assert torch.equal(moved(clean, down=2, right=-4), wanted)


def test_the_image_is_turned_first_and_shifted_then() -> None:
    clean = images(1, 8, 8)
    turned = torch.rot90(clean, 1, dims=(1, 2))
    wanted = torch.zeros_like(clean)
    wanted[:, 1:] = turned[:, :-1]
    assert torch.equal(moved(clean, angle=90.0, down=1), wanted)


@settings(max_examples=25, deadline=None)
@given(st.floats(-180, 180), st.floats(-4, 4), st.floats(-4, 4))
def test_it_is_the_affine_transformation_of_scipy(angle: float, down: float, right: float) -> None:
    clean = images(1, 9, 12)
    turn = math.radians(angle)
    matrix = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    centre = np.array([4.0, 5.5])
    offset = centre - matrix @ (centre + np.array([down, right]))
    wanted = affine_transform(clean[0].double().numpy(), matrix, offset=offset, order=1, mode="grid-constant", cval=0.0)
    np.testing.assert_allclose(moved(clean, angle, down, right)[0].numpy(), wanted, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0, 50), epsilon=st.floats(0, 1), grid=st.integers(2, 9))
def test_no_recolouring_leaves_the_limits_whatever_the_parameters(
    seed: int, scale: float, epsilon: float, grid: int
) -> None:
    transform = Recolouring(epsilon, grid)
    clean = images(2, 3, 5, 5, seed=seed)
    noise = torch.randn(2, *transform.shape((3, 5, 5)), generator=torch.Generator().manual_seed(seed))
    found = transform.render(clean, transform.clip(noise * scale))
    assert ((found - clean).abs() <= epsilon + 1e-6).all()
    assert ((found >= 0) & (found <= 1)).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0, 50))
def test_no_spatial_image_leaves_the_limits_whatever_the_parameters(seed: int, scale: float) -> None:
    transform = Spatial(20.0, 0.2)
    clean = images(2, 1, 7, 7, seed=seed)
    wild = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed)) * scale
    clipped = transform.clip(wild)
    assert (clipped.abs() <= 1).all()
    assert torch.equal(transform.clip(clipped), clipped)
    found = transform.render(clean, clipped)
    assert ((found >= 0) & (found <= 1)).all()
    assert (found.sum(dim=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_one_colour_stay_of_one_colour_and_similar_ones_similar(channels: int) -> None:
    transform = Recolouring(0.2, 4)
    palette = images(1, channels, 1, 6)
    clean = palette.repeat(1, 1, 3, 1)
    noise = 2 * images(1, *transform.shape((channels, 3, 6)), seed=4) - 1
    found = transform.render(clean, noise)
    assert torch.equal(found, found[:, :, :1].expand_as(found))
    near = (palette + 1e-4).clamp(0, 1)
    steepest = channels * 2 * 0.2 * (4 - 1)
    apart = (transform.render(near, noise) - transform.render(palette, noise)).abs().amax()
    assert apart <= 1e-4 * (1 + steepest) + 1e-6


def test_displacing_every_node_alike_displaces_every_colour_alike() -> None:
    transform = Recolouring(0.1, 6)
    clean = 0.2 + 0.6 * images(2, 3, 4, 4)
    parameters = torch.ones(2, *transform.shape((3, 4, 4)))
    parameters[1] = -0.5
    found = transform.render(clean, parameters)
    torch.testing.assert_close(found - clean, torch.tensor([0.1, -0.05])[:, None, None, None].expand_as(clean))


def test_an_example_does_not_depend_on_its_company() -> None:
    clean = images(33, 3, 8, 8)
    for transform in (Spatial(40.0, 0.3), Recolouring(0.1, 4)):
        noise = 2 * images(33, *transform.shape((3, 8, 8)), seed=1) - 1
        together = transform.render(clean, noise)
        alone = torch.cat([transform.render(clean[i : i + 1], noise[i : i + 1]) for i in range(33)])
        assert torch.equal(together, alone)


def test_the_gradient_leads_where_the_image_changes() -> None:
    clean = images(1, 1, 9, 9)
    for transform in (Spatial(30.0, 0.3), Recolouring(0.3, 4)):
        start = (images(1, *transform.shape((1, 9, 9)), seed=2).double() - 0.5).requires_grad_()
        weight = images(1, 1, 9, 9, seed=3)
        (gradient,) = torch.autograd.grad((transform.render(clean, start) * weight).sum(), start)
        ahead = transform.render(clean, start.detach() + 1e-3 * gradient / gradient.norm())
        behind = transform.render(clean, start.detach() - 1e-3 * gradient / gradient.norm())
        slope = float(((ahead - behind) * weight).sum()) / 2e-3
        assert slope == pytest.approx(float(gradient.norm()), rel=0.05)


def test_threats_name_their_family_and_balls_have_none() -> None:
    assert transform_of(SpatialThreat(rotation=30, translation=0.1)) == Spatial(30.0, 0.1)
    assert transform_of(RecolourThreat(epsilon=Epsilon("1/4"), grid=3)) == Recolouring(0.25, 3)
    with pytest.raises(UsageError, match=r"linf-0\.1 is a ball"):
        transform_of(ThreatModel(epsilon=Epsilon("0.1")))


def test_images_of_many_channels_cannot_be_recoloured() -> None:
    with pytest.raises(UsageError, match="at most 3 channels, these have 4"):
        Recolouring(0.1, 4).shape((4, 8, 8))
