from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robusteval.attacks.geometry import (
    clip_to_threat,
    perturbation_norm,
    project_l1,
    project_l2,
    project_linf,
    random_start,
    unit_l2,
)
from robusteval.schema.types import Epsilon, Norm, ThreatModel

PROJECTIONS = {Norm.LINF: project_linf, Norm.L2: project_l2, Norm.L1: project_l1}
ORDERS = {Norm.LINF: np.inf, Norm.L2: 2, Norm.L1: 1}
NORMS = st.sampled_from(list(Norm))


def batch(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(NORMS, st.integers(0, 10**6), st.floats(0, 30))
@settings(max_examples=60, deadline=None)
def test_a_projection_lands_in_the_ball_and_leaves_what_is_inside(norm: Norm, seed: int, epsilon: float) -> None:
    delta = batch(seed, 5, 2, 3, 3)
    projected = PROJECTIONS[norm](delta, epsilon)
    size = perturbation_norm(projected, norm)
    assert (size <= epsilon * (1 + 1e-5) + 1e-6).all()
    inside = perturbation_norm(delta, norm) <= epsilon
    assert torch.equal(projected[inside], delta[inside])
    assert torch.allclose(PROJECTIONS[norm](projected, epsilon), projected, atol=1e-5)


@given(NORMS, st.integers(0, 10**6), st.floats(0.01, 5))
@settings(max_examples=60, deadline=None)
def test_no_point_of_the_ball_is_nearer_than_the_projection(norm: Norm, seed: int, epsilon: float) -> None:
    delta = batch(seed, 1, 1, 3, 3).double()
    projected = PROJECTIONS[norm](delta, epsilon)
    others = batch(seed + 1, 400, 1, 3, 3).double()
    others = PROJECTIONS[norm](others, epsilon)
    distance = (delta - projected).flatten().norm()
    assert (distance <= (delta - others).flatten(1).norm(dim=1) + 1e-9).all()


def test_l1_projection_of_a_known_vector() -> None:
    # Soft threshold 1.5: |4| -> 2.5, |-2| -> 0.5, |1| -> 0, which sums to 3.
    delta = torch.tensor([[[[4.0, -2.0, 1.0]]]])
    assert torch.equal(project_l1(delta, 3.0), torch.tensor([[[[2.5, -0.5, 0.0]]]]))


@pytest.mark.parametrize("norm", list(Norm))
def test_perturbation_norm_agrees_with_numpy(norm: Norm) -> None:
    delta = batch(0, 4, 3, 5, 5)
    expected = np.linalg.norm(delta.flatten(1).double().numpy(), ord=ORDERS[norm], axis=1)
    assert np.allclose(perturbation_norm(delta, norm).numpy(), expected, rtol=1e-6)


@given(NORMS, st.integers(0, 10**6), st.sampled_from(["8/255", "1/255", "0.1", "0.5", "3", "0"]))
@settings(max_examples=80, deadline=None)
def test_a_clipped_candidate_is_inside_ball_and_box_at_once(norm: Norm, seed: int, epsilon: str) -> None:
    threat = ThreatModel(norm=norm, epsilon=Epsilon(epsilon))
    clean = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    clean[0], clean[1] = 0.0, 1.0
    clipped = clip_to_threat(clean + batch(seed, 4, 3, 6, 6), clean, threat)
    assert clipped.dtype == torch.float32
    assert ((clipped >= 0) & (clipped <= 1)).all()
    rounding = {Norm.LINF: 1, Norm.L2: np.sqrt(108), Norm.L1: 108}[norm] * 2.0**-24
    size = perturbation_norm(clipped.double() - clean.double(), norm)
    assert (size <= float(threat.epsilon) * (1 + 1e-6) + rounding).all()


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_random_starts_stay_in_the_ball_and_follow_their_example(norm: Norm) -> None:
    clean = torch.rand(9, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    keys = torch.arange(9) * 10**9
    whole = random_start(clean, keys, norm=norm, epsilon=0.2, seed=1, purpose="a")
    assert (perturbation_norm(whole - clean, norm) <= 0.2 + 1e-6).all()
    assert (perturbation_norm(whole - clean, norm) > 0).all()
    order = torch.tensor([8, 0, 4])
    part = random_start(clean[order], keys[order], norm=norm, epsilon=0.2, seed=1, purpose="a")
    assert torch.equal(part, whole[order])
    for changed in ({"seed": 2, "purpose": "a"}, {"seed": 1, "purpose": "b"}):
        assert not torch.equal(random_start(clean, keys, norm=norm, epsilon=0.2, **changed), whole)


def test_tiny_gradients_keep_their_direction() -> None:
    gradient = torch.tensor([[[[3e-30, 4e-30]]], [[[0.0, 0.0]]]])
    assert torch.allclose(unit_l2(gradient), torch.tensor([[[[0.6, 0.8]]], [[[0.0, 0.0]]]]))
