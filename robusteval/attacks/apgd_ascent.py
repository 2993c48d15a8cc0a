"""How a run of APGD walks: what it remembers, when it shortens its step, when it goes back to its best point.

Everything is kept per job, so that jobs of different age can share a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from robusteval.attacks.apgd_moves import INERTIA, Stand, column, into_l1, move_l1, move_l2, move_linf, start
from robusteval.attacks.apgd_schedule import Schedule
from robusteval.attacks.jobs import State
from robusteval.schema.types import Norm


class Ascent(ABC):
    """The walk in one ball.

    Args:
        norm: norm of the ball.
        epsilon: its radius.
        plan: phases and checks of a run.
    """

    def __init__(self, norm: Norm, epsilon: float, plan: Schedule) -> None:
        self.norm = norm
        self.epsilon = epsilon
        self.plan = plan

    def begin(self, clean: Tensor, noise: Tensor) -> State:
        """State of jobs that have not been evaluated yet; `noise` is (J, C, H, W)."""
        count = len(clean)
        first = start(clean, noise, self.norm, self.plan.radii[0] * self.epsilon)
        return {
            "clean": clean,
            "current": first,
            "age": torch.zeros(count, dtype=torch.int64, device=clean.device),
            # The same number on the host, where it decides what is computed without waiting for the device.
            "clock": torch.zeros(count, dtype=torch.int64),
            "best": first,
            "best_gradient": torch.zeros_like(clean),
            "best_loss": clean.new_full((count,), -float("inf")),
        }

    def advance(self, state: State, ages: list[int], losses: Tensor, gradient: Tensor) -> None:
        """Take in the evaluation of `current` and move on.

        Args:
            state: of J jobs; `current` becomes the next point to evaluate.
            ages: of each job, how many evaluations it had before this one.
            losses: (J,) losses at `current`.
            gradient: (J, C, H, W) their gradients, finite; not read for jobs whose phase ends.
        """
        here = state["current"]
        improved = losses > state["best_loss"]
        state["best_loss"] = torch.where(improved, losses, state["best_loss"])
        state["best"] = torch.where(column(improved), here, state["best"])
        state["best_gradient"] = torch.where(column(improved), gradient, state["best_gradient"])
        self._record(state, losses)
        base = here
        periods = [self.plan.periods[age] for age in ages]
        if any(periods):
            back = column(self._check(state, torch.tensor(periods, device=here.device)))
            base = torch.where(back, state["best"], here)
            gradient = torch.where(back, state["best_gradient"], gradient)
        state["current"] = self._move(state, base, gradient)
        state["age"] = state["age"] + 1
        state["clock"] = state["clock"] + 1
        last = self.plan.evaluations - 1
        if any(self.plan.ends[age] and age < last for age in ages):
            self._next_phase(state)

    @abstractmethod
    def _record(self, state: State, losses: Tensor) -> None:
        """Keep what the next check needs."""

    @abstractmethod
    def _check(self, state: State, periods: Tensor) -> Tensor:
        """Set the step of each job where `periods` (J,) is positive; returns who goes back to its best point (J,)."""

    @abstractmethod
    def _move(self, state: State, base: Tensor, gradient: Tensor) -> Tensor:
        """The next iterate (J, C, H, W)."""

    @abstractmethod
    def _next_phase(self, state: State) -> None:
        """Begin the next phase of the jobs whose phase has just ended."""


class InertialAscent(Ascent):
    """linf and l2: steps of 2 epsilon with inertia, halved when the loss oscillates or stands still."""

    def __init__(self, norm: Norm, epsilon: float, plan: Schedule, rho: float) -> None:
        super().__init__(norm, epsilon, plan)
        self.rho = rho

    def begin(self, clean: Tensor, noise: Tensor) -> State:
        """See `Ascent.begin`."""
        state, zeros = super().begin(clean, noise), clean.new_zeros(len(clean))
        return state | {
            "previous": state["current"],
            "step": zeros + 2.0 * self.epsilon,
            "last_loss": zeros,
            "rises": zeros.long(),
            "loss_at_check": zeros,
            "halved": torch.ones_like(zeros, dtype=torch.bool),
        }

    def _record(self, state: State, losses: Tensor) -> None:
        # The loss of the start is not part of the count: as published, the first iterate is compared with zero.
        first = state["age"] == 0
        rises = state["rises"] + (losses > state["last_loss"])
        state["rises"] = torch.where(first, 0, rises)
        state["last_loss"] = torch.where(first, 0.0, losses)
        state["loss_at_check"] = torch.where(first, losses, state["loss_at_check"])

    def _check(self, state: State, periods: Tensor) -> Tensor:
        due = periods > 0
        oscillates = state["rises"] <= self.rho * periods
        stands_still = ~state["halved"] & (state["loss_at_check"] >= state["best_loss"])
        halve = due & (oscillates | stands_still)
        state["step"] = torch.where(halve, state["step"] / 2.0, state["step"])
        state["halved"] = torch.where(due, halve, state["halved"])
        state["loss_at_check"] = torch.where(due, state["best_loss"], state["loss_at_check"])
        state["rises"] = torch.where(due, 0, state["rises"])
        return halve

    def _move(self, state: State, base: Tensor, gradient: Tensor) -> Tensor:
        share = torch.where(state["age"] == 0, 1.0, INERTIA)
        stand = Stand(state["clean"], base, state["previous"], gradient, state["step"], share)
        state["previous"] = base
        return (move_linf if self.norm is Norm.LINF else move_l2)(stand, self.epsilon)

    def _next_phase(self, state: State) -> None:
        raise ValueError("only the l1 ball has phases")


class SparseAscent(Ascent):
    """l1: signed steps of length epsilon along the pixels with the largest gradients.

    How many pixels move follows the sparsity of the best point: two thirds of those it has changed. When that number
    falls by more than 5 % between two checks, the job goes back to its best point with the full step; otherwise the
    step is divided by 1.5, down to a tenth.
    """

    def begin(self, clean: Tensor, noise: Tensor) -> State:
        """See `Ascent.begin`."""
        state = super().begin(clean, noise)
        step = clean.new_full((len(clean),), self.plan.radii[0] * self.epsilon)
        pixels = clean[0].numel()
        if len(set(self.plan.radii)) == 1:
            support, density = torch.full_like(step, pixels), torch.full_like(step, 0.2)
        else:
            support = _changed(state["current"], clean)
            density = support / pixels / 1.5
        return state | {"step": step, "support": support, "density": density}

    def _record(self, state: State, losses: Tensor) -> None:
        """Nothing but the best point counts here."""

    def _check(self, state: State, periods: Tensor) -> Tensor:
        due, full = periods > 0, self._radius(state)
        support = _changed(state["best"], state["clean"])
        sparser = due & (support / state["support"] < 0.95)
        step = torch.where(sparser, full, torch.clamp(state["step"] / 1.5, full / 10.0, full))
        state["step"] = torch.where(due, step, state["step"])
        state["density"] = torch.where(due, support / state["clean"][0].numel() / 1.5, state["density"])
        state["support"] = torch.where(due, support, state["support"])
        return sparser

    def _move(self, state: State, base: Tensor, gradient: Tensor) -> Tensor:
        clean = state["clean"]
        # `previous` and `share` are not read in l1.
        stand = Stand(clean, base, base, gradient, state["step"], state["step"])
        return move_l1(stand, state["density"], self._radius(state))

    def _next_phase(self, state: State) -> None:
        began = torch.tensor(self.plan.iterations, device=state["age"].device)
        rows = (began[state["age"].clamp_max(len(began) - 1)] == 0).nonzero().flatten()
        clean, radius = state["clean"][rows], self._radius(state)[rows]
        point = into_l1(state["best"][rows] - clean, clean, radius)
        support = _changed(point, clean)
        state["current"][rows] = point
        state["best_loss"][rows] = -float("inf")
        state["step"][rows] = radius
        state["support"][rows] = support
        state["density"][rows] = support / clean[0].numel() / 1.5

    def _radius(self, state: State) -> Tensor:
        """(J,) radius of the ball that each job stands in."""
        radii = state["clean"].new_tensor(self.plan.radii) * self.epsilon
        return radii[state["age"].clamp_max(len(radii) - 1)]


def _changed(images: Tensor, clean: Tensor) -> Tensor:
    """Number of pixels that differ, (J,) float32."""
    return (images != clean).flatten(1).sum(dim=1).float()
