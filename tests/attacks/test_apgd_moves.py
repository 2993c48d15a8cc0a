from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robusteval.attacks.apgd_moves import Stand, into_l1, into_l2, move_l1, move_l2, move_linf, start
from robusteval.attacks.geometry import perturbation_norm
from robusteval.schema.types import Norm

SHAPE = (3, 4, 5)


def drawn(seed: int, rows: int = 6):
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(rows, *SHAPE, generator=generator)
    clean[0, 0] = 0.0
    return clean, torch.randn(rows, *SHAPE, generator=generator), generator


def by_bisection(delta, clean, radius):
    """The same projection in float64, its threshold found by halving an interval."""
    delta, clean = delta.double().flatten(1), clean.double().flatten(1)
    room = torch.where(delta > 0, 1 - clean, clean)
    low, high = torch.zeros(len(delta), 1).double(), delta.abs().amax(dim=1, keepdim=True)

    def kept(threshold):
        return torch.minimum((delta.abs() - threshold).clamp(min=0), room)

    for _ in range(80):
        middle = (low + high) / 2
        too_large = kept(middle).sum(dim=1, keepdim=True) > radius.double()[:, None]
        low, high = torch.where(too_large, middle, low), torch.where(too_large, high, middle)
    return clean + delta.sign() * kept(torch.where(kept(torch.zeros_like(low)).sum(1, True) > radius[:, None], high, 0))


@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 10), radius=st.floats(0.01, 40))
def test_the_l1_projection_is_the_nearest_point_of_ball_and_box(seed, scale, radius) -> None:
    clean, noise, _ = drawn(seed)
    radii = torch.tensor([radius, 0.3 * radius, 2 * radius, radius, radius, radius])
    found = into_l1(scale * noise, clean, radii)
    assert torch.allclose(found.flatten(1).double(), by_bisection(scale * noise, clean, radii), atol=2e-6)
    assert (perturbation_norm(found - clean, Norm.L1) <= radii * (1 + 1e-5) + 1e-5).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_the_l1_projection_equals_the_references() -> None:
    from pyautoattack.autopgd_base import L1_projection

    clean, noise, _ = drawn(5)
    for radius in (0.2, 3.0, 12.0):
        theirs = clean + noise + L1_projection(clean, noise, radius)
        assert torch.allclose(into_l1(noise, clean, torch.full((6,), radius)), theirs, atol=1e-5)


def test_the_l1_projection_leaves_unperturbed_pixels_exactly_as_they_were() -> None:
    clean, noise, _ = drawn(2)
    noise[:, 1] = 0
    found = into_l1(noise, clean, torch.full((6,), 0.5))
    assert torch.equal(found[:, 1], clean[:, 1])
    assert torch.equal(into_l1(torch.zeros_like(noise), clean, torch.full((6,), 0.5)), clean)


@pytest.mark.parametrize("norm", list(Norm))
def test_a_start_lies_on_the_sphere_where_the_box_allows(norm) -> None:
    _, noise, _ = drawn(1)
    clean = torch.full_like(noise, 0.5)
    found = start(clean, noise, norm, 0.25)
    assert torch.allclose(perturbation_norm(found - clean, norm), torch.full((6,), 0.25), rtol=1e-5)
    corner = start(torch.zeros_like(noise), noise, norm, 0.25)
    assert ((corner >= 0) & (corner <= 1)).all()


def stand(seed: int, **fields) -> Stand:
    clean, noise, generator = drawn(seed)
    base = into_l1(0.02 * noise, clean, torch.full((6,), 0.5))
    gradient = torch.randn(base.shape, generator=generator)
    gradient[3] = 0
    step = torch.tensor([0.1, 0.2, 0.4, 0.1, 1.0, 0.01])
    defaults = {"clean": clean, "base": base, "previous": base.clone(), "gradient": gradient, "step": step}
    return Stand(**(defaults | {"share": torch.ones(6)} | fields))


def test_moves_stay_in_ball_and_box_and_change_none_of_their_inputs() -> None:
    here = stand(4, share=torch.full((6,), 0.75))
    before = [value.clone() for value in vars(here).values()]
    moves = {
        Norm.LINF: move_linf(here, 0.3),
        Norm.L2: move_l2(here, 0.3),
        Norm.L1: move_l1(here, torch.full((6,), 0.2), torch.full((6,), 0.3)),
    }
    for norm, moved in moves.items():
        size = perturbation_norm(moved - here.clean, norm)
        assert (size <= 0.3 * (1 + 1e-5) + 1e-6).all()
        assert (size > 0.03).all()
        assert (moved != here.base).flatten(1).any(dim=1).sum() >= 5
        assert ((moved >= 0) & (moved <= 1)).all()
    assert all(torch.equal(old, new) for old, new in zip(before, vars(here).values(), strict=True))


def test_inertia_continues_the_move_before() -> None:
    clean = torch.full((1, *SHAPE), 0.5)
    base = clean + 0.02
    gradient = torch.ones_like(clean)
    here = Stand(clean, base, clean, gradient, torch.tensor([0.04]), torch.tensor([0.75]))
    assert torch.allclose(move_linf(here, 1.0), base + 0.75 * 0.04 + 0.25 * 0.02)
    unit = gradient / gradient.norm()
    assert torch.allclose(move_l2(here, 9.0), base + 0.75 * 0.04 * unit + 0.25 * 0.02)


def test_the_l1_step_moves_the_share_of_pixels_with_the_largest_gradients() -> None:
    here = stand(7)
    pixels = here.clean[0].numel()
    moved = move_l1(here, torch.full((6,), 0.1), torch.full((6,), 1e6))
    changed = (moved - here.base).flatten(1).abs() > 1e-7
    assert (changed.sum(dim=1)[[0, 1, 2, 4, 5]] <= pixels // 10).all()
    assert not changed[3].any()
    largest = here.gradient.flatten(1).abs().topk(pixels // 10, dim=1).values[:, -1:]
    assert (here.gradient.flatten(1).abs()[changed] >= largest.expand_as(changed)[changed]).all()


def test_the_l2_projection_shortens_and_never_lengthens() -> None:
    clean, noise, _ = drawn(3)
    inside = into_l2(clean + 1e-3 * noise, clean, 5.0)
    assert torch.allclose(inside, (clean + 1e-3 * noise).clamp(0, 1), atol=1e-7)
    assert torch.equal(into_l2(clean.clone(), clean, 5.0), clean)
