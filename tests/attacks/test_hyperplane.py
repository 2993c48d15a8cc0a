from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyautoattack.fab_projections import projection_l1, projection_l2, projection_linf
from scipy.optimize import linprog, minimize

from robusteval.attacks.hyperplane import CACHED, step_to_hyperplane
from robusteval.schema.types import Norm

REFERENCE = {Norm.LINF: projection_linf, Norm.L2: projection_l2, Norm.L1: projection_l1}
ORDER = {Norm.LINF: torch.inf, Norm.L2: 2, Norm.L1: 1}


def problem(seed: int, rows: int, width: int, reach: float, spread: float = 0.0):
    """Points with some pixels on the bounds, normals with some zeros, and gaps up to `reach` of what the box allows."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    points = (1.4 * uniform(rows, width) - 0.2).clamp(0, 1)
    normals = torch.randn(rows, width, generator=generator) * torch.exp(spread * (uniform(rows, width) - 0.5))
    normals = normals * (uniform(rows, width) > 0.1)
    signs = torch.randn(rows, generator=generator).sign()
    room = torch.where(normals * signs[:, None] > 0, points, 1 - points)
    gaps = signs * reach * uniform(rows) * (normals.abs() * room).sum(dim=1)
    return points, normals, gaps


def left_over(points, normals, gaps, steps):
    """Gap after the step, relative to the largest that the step could have met."""
    double = normals.double()
    return ((double * steps.double()).sum(dim=-1) + gaps.double()).abs() / double.abs().sum(dim=-1)


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("reach", [0.05, 0.9, 1.5])
def test_steps_equal_those_of_the_published_projections(norm, reach) -> None:
    points, normals, gaps = problem(0, 64, 300, reach)
    offsets = (normals * points).sum(dim=1) - gaps
    expected = REFERENCE[norm](points, normals, offsets)
    assert torch.allclose(step_to_hyperplane(points, normals, gaps, norm), expected, atol=1e-4)


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("seed", range(6))
def test_no_shorter_step_exists(norm, seed) -> None:
    points, normals, gaps = problem(seed, 1, 6, 0.8)
    found = step_to_hyperplane(points, normals, gaps, norm)
    w, gap = normals[0].double().numpy(), float(gaps[0])
    low, high = -points[0].double().numpy(), 1 - points[0].double().numpy()
    d = len(w)
    if norm is Norm.L2:
        start = found[0].double().numpy() * 0.5
        constraint = {"type": "eq", "fun": lambda step: w @ step + gap}
        best = minimize(
            lambda step: step @ step,
            start,
            bounds=list(zip(low, high, strict=True)),
            constraints=[constraint],
            options={"ftol": 1e-14},
        )
        shortest = float(np.sqrt(best.fun))
    else:
        sizes = np.eye(d) if norm is Norm.L1 else np.ones((d, 1))
        k = sizes.shape[1]
        best = linprog(
            np.concatenate([np.zeros(d), np.ones(k)]),
            A_ub=np.block([[np.eye(d), -sizes], [-np.eye(d), -sizes]]),
            b_ub=np.zeros(2 * d),
            A_eq=np.concatenate([w, np.zeros(k)])[None],
            b_eq=[-gap],
            bounds=[*zip(low, high, strict=True), *[(0, None)] * k],
        )
        shortest = best.fun
    assert best.success
    assert float(torch.linalg.vector_norm(found[0], ord=ORDER[norm])) == pytest.approx(shortest, abs=2e-5)
    assert float(left_over(points, normals, gaps, found)[0]) < 1e-6


@given(
    norm=st.sampled_from(list(Norm)),
    seed=st.integers(0, 2**20),
    width=st.integers(1, 200),
    reach=st.floats(0.0, 1.6),
    spread=st.floats(0.0, 30.0),
)
def test_a_step_stays_in_the_box_and_ends_on_the_plane_or_in_the_nearest_corner(
    norm, seed, width, reach, spread
) -> None:
    points, normals, gaps = problem(seed, 4, width, reach, spread)
    steps = step_to_hyperplane(points, normals, gaps, norm)
    assert ((points + steps >= -1e-6) & (points + steps <= 1 + 1e-6)).all()
    against = normals * gaps.sign()[:, None]
    assert (steps * against <= 0).all()
    room = torch.where(against > 0, points, 1 - points) * (normals != 0)
    out_of_reach = (normals.abs() * room).sum(dim=1) < gaps.abs() * (1 - 1e-5)
    on_plane = left_over(points, normals, gaps, steps) < 1e-5
    in_corner = (steps.abs() - room).abs().amax(dim=1) < 1e-6
    assert torch.where(out_of_reach, in_corner, on_plane | in_corner).all()


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("factor", [2.0**-90, 2.0**60])
def test_the_scale_of_the_normal_does_not_matter(norm, factor) -> None:
    points, normals, gaps = problem(3, 8, 50, 0.5)
    expected = step_to_hyperplane(points, normals, gaps, norm)
    assert torch.equal(step_to_hyperplane(points, normals * factor, gaps * factor, norm), expected)


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_newton_ends_where_every_step_fills_one_pixel_only(norm) -> None:
    exponents = torch.arange(60.0)
    room, weights = 2.0**-exponents, 2.0 ** (exponents - 59)
    points, normals = room[None], weights[None]
    gaps = (0.999 * (room * weights).sum())[None]
    steps = step_to_hyperplane(points, normals, gaps, norm)
    assert float((normals * steps).sum() / -gaps[0]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("norm", Norm)
def test_a_step_depends_on_its_own_point_alone(norm) -> None:
    width = 700
    rows = 2 * (CACHED // width) + 3
    points, normals, gaps = problem(5, rows, width, 0.7)
    together = step_to_hyperplane(points, normals, gaps, norm)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    assert torch.equal(step_to_hyperplane(points[order], normals[order], gaps[order], norm), together[order])
    for row in (0, rows // 2, rows - 1):
        one = slice(row, row + 1)
        assert torch.equal(step_to_hyperplane(points[one], normals[one], gaps[one], norm), together[one])


@pytest.mark.parametrize("norm", Norm)
def test_several_points_can_share_their_normals(norm) -> None:
    points, normals, gaps = problem(6, 5, 40, 0.4)
    other = points.flip(0)
    both = step_to_hyperplane(torch.stack([points, other]), normals, torch.stack([gaps, gaps / 2]), norm)
    assert torch.equal(both[0], step_to_hyperplane(points, normals, gaps, norm))
    assert torch.equal(both[1], step_to_hyperplane(other, normals, gaps / 2, norm))


@pytest.mark.parametrize("norm", Norm)
def test_no_normal_or_no_gap_means_no_step(norm) -> None:
    points, normals, gaps = problem(7, 3, 20, 0.5)
    normals[0], gaps[1] = 0.0, 0.0
    steps = step_to_hyperplane(points, normals, gaps, norm)
    assert not steps[:2].any()
    assert steps[2].any()
