from __future__ import annotations

import pytest
import torch

from robusteval.attacks.apgd_ascent import InertialAscent, SparseAscent
from robusteval.attacks.apgd_schedule import schedule
from robusteval.attacks.jobs import joined, selected
from robusteval.schema.types import Norm

SHAPE = (1, 4, 4)


def walk(ascent, losses, gradient=1.0):
    """Feed one job a list of losses; yields (age, state) after each evaluation is taken in."""
    clean = torch.full((1, *SHAPE), 0.5)
    state = ascent.begin(clean, torch.ones_like(clean))
    for age, loss in enumerate(losses):
        ascent.advance(state, [age], torch.tensor([float(loss)]), torch.full_like(clean, gradient))
        yield age, state


def halvings(losses, rho=0.75, steps=100):
    """Evaluations after which the step is halved."""
    ascent = InertialAscent(Norm.LINF, 0.1, schedule(Norm.LINF, steps, shrinking=False), rho)
    found, step = [], 0.2
    for age, state in walk(ascent, losses):
        if float(state["step"]) < step * 0.99:
            assert float(state["step"]) == pytest.approx(step / 2)
            found.append(age)
        step = float(state["step"])
    return found


def test_a_loss_that_keeps_rising_never_shortens_the_step() -> None:
    assert halvings(range(1, 101)) == []


def test_a_loss_that_falls_shortens_the_step_at_every_check() -> None:
    assert halvings(range(100, 0, -1)) == [22, 41, 57, 70, 80, 87, 93, 99]


def test_three_quarters_of_rises_are_too_few_and_one_more_is_enough() -> None:
    def rising(count):
        return [0.0, *[1.0 + index for index in range(count)], *[-1.0 - index for index in range(22 - count)]]

    assert halvings(rising(16)) == [22]
    assert halvings(rising(17)) == []


def test_as_published_the_first_iterate_is_compared_with_zero_not_with_the_start() -> None:
    rising = torch.linspace(-2, -1, 23).tolist()
    assert halvings(rising, rho=21 / 22) == [22]
    assert halvings([loss + 3 for loss in rising], rho=21 / 22) == []


def test_a_step_that_was_kept_is_halved_when_the_best_loss_stands_still() -> None:
    first = list(range(1, 24))
    # From 22 on the loss rises at most steps, so it does not count as oscillating, but never above its best.
    sawtooth = [0.0, *[0.1 + 0.01 * index for index in range(18)]]
    assert halvings(first + sawtooth[: 41 - 22]) == [41]


def test_after_a_halving_the_walk_continues_from_the_best_point_and_its_gradient() -> None:
    ascent = InertialAscent(Norm.LINF, 0.1, schedule(Norm.LINF, 100, shrinking=False), 0.75)
    seen = []
    for age, state in walk(ascent, [0, 5, 1, 2, *range(0, -19, -1)]):
        seen.append(state["current"])
        if age == 22:
            assert torch.equal(state["best"], seen[0])
            assert torch.equal(state["previous"], seen[0])


def test_jobs_of_different_age_walk_as_they_would_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.rand(2, *SHAPE, generator=generator), torch.randn(2, *SHAPE, generator=generator)
    late = 9
    for norm, shrinking in ((Norm.LINF, False), (Norm.L2, False), (Norm.L1, False), (Norm.L1, True)):
        plan = schedule(norm, 40, shrinking=shrinking)
        ascent = SparseAscent(norm, 0.4, plan) if norm is Norm.L1 else InertialAscent(norm, 0.4, plan, 0.75)

        def evaluate(current, row):
            aim = torch.linspace(-1, 1, 16).view(SHAPE) * (1 + row)
            return ((current * 3).sin() * aim).flatten(1).sum(dim=1), 3 * (current * 3).cos() * aim

        def alone(row, ascent=ascent, plan=plan):
            state, path = ascent.begin(clean[row : row + 1], noise[row : row + 1]), []
            for age in range(plan.evaluations - 1):
                path.append(state["current"])
                ascent.advance(state, [age], *evaluate(state["current"], row))
            return [*path, state["current"]]

        first, second = alone(0), alone(1)
        state = ascent.begin(clean[:1], noise[:1])
        for age in range(late):
            ascent.advance(state, [age], *evaluate(state["current"], 0))
        state = joined(state, ascent.begin(clean[1:], noise[1:]))
        for age in range(late, plan.evaluations - 1):
            parts = [evaluate(state["current"][row : row + 1], row) for row in (0, 1)]
            losses, gradients = (torch.cat(part) for part in zip(*parts, strict=True))
            ascent.advance(state, [age, age - late], losses, gradients)
            assert torch.equal(state["current"][:1], first[age + 1])
            assert torch.equal(state["current"][1:], second[age - late + 1])
        assert torch.equal(selected(state, torch.tensor([1]))["current"], second[plan.evaluations - 1 - late])


def test_l1_phases_begin_at_the_best_point_in_a_smaller_ball() -> None:
    plan = schedule(Norm.L1, 10, shrinking=True)
    ascent = SparseAscent(Norm.L1, 0.3, plan)
    clean = torch.full((1, *SHAPE), 0.5)
    for age, state in walk(ascent, range(plan.evaluations), gradient=-1.0):
        size = float((state["current"] - clean).abs().sum())
        radius = 0.3 * plan.radii[min(age + 1, plan.evaluations - 1)]
        assert size <= radius * (1 + 1e-5)
        if plan.ends[age] and age + 1 < plan.evaluations:
            assert size == pytest.approx(radius, rel=1e-4)
            assert float(state["step"]) == pytest.approx(radius)
            assert float(state["best_loss"]) == -float("inf")


def test_l1_takes_the_full_step_when_the_best_point_gets_sparser_and_a_shorter_one_otherwise() -> None:
    plan = schedule(Norm.L1, 100, shrinking=False)
    steps = [float(state["step"]) for _, state in walk(SparseAscent(Norm.L1, 0.3, plan), range(60))]
    # Every gradient has one size, so the best point keeps all pixels after the first check.
    assert steps[3] == pytest.approx(0.3)
    assert steps[30] == pytest.approx(0.03)
