"""When a run of APGD checks its progress, and in how large a ball it stands at each evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robusteval.schema.types import Norm


@dataclass(frozen=True)
class Schedule:
    """The plan of one run; entry a of every tuple belongs to its a-th evaluation of the network, the start being 0.

    A phase of s iterations has s + 1 evaluations: that of its start, and that of each iterate. A run has one phase, or
    three in balls that shrink, each beginning at the best point of the one before.

    Attributes:
        iterations: iteration of the phase whose iterate is evaluated, 0 for its start.
        periods: iterations since the last check if this evaluation is followed by one, else 0.
        radii: radius of the ball in multiples of epsilon.
        ends: whether the phase ends here.
    """

    iterations: tuple[int, ...]
    periods: tuple[int, ...]
    radii: tuple[int, ...]
    ends: tuple[bool, ...]

    @property
    def evaluations(self) -> int:
        """Evaluations of a run that is never stopped."""
        return len(self.ends)


def schedule(norm: Norm, steps: int, *, shrinking: bool) -> Schedule:
    """The published schedule.

    In linf and l2 the first check follows 0.22 of the iterations, and each period is 0.03 of them shorter than the one
    before, down to 0.06 (with 100 iterations: after 22, 41, 57, 70, 80, 87, 93 and 99). In l1 every period is 0.04 of
    the phase's iterations.

    Args:
        norm: norm of the ball.
        steps: iterations of a run, over all phases.
        shrinking: three phases, in 3, 2 and 1 times the ball for 0.3, 0.3 and 0.4 of the iterations.
    """
    lengths, radii = [steps], [1]
    if shrinking:
        part = math.ceil(0.3 * steps)
        lengths, radii = [part, part, max(0, steps - 2 * part)], [3, 2, 1]
    periods: list[int] = []
    for length in lengths:
        periods += _l1_periods(length) if norm is Norm.L1 else _shrinking_periods(length)
    return Schedule(
        iterations=tuple(iteration for length in lengths for iteration in range(length + 1)),
        periods=tuple(periods),
        radii=tuple(radius for length, radius in zip(lengths, radii, strict=True) for _ in range(length + 1)),
        ends=tuple(iteration == length for length in lengths for iteration in range(length + 1)),
    )


def _shrinking_periods(steps: int) -> list[int]:
    period, shortest, shorter = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    periods, last = [0] * (steps + 1), 0
    # A check after the last iteration would change nothing.
    while last + period < steps:
        last += period
        periods[last] = period
        period = max(period - shorter, shortest)
    return periods


def _l1_periods(steps: int) -> list[int]:
    period = max(int(0.04 * steps), 1)
    return [period if 0 < iteration < steps and iteration % period == 0 else 0 for iteration in range(steps + 1)]
