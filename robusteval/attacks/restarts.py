"""Restarts of a gradient ascent: what stands after one run is attacked by the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Trail:
    """How an ascent on B examples ended.

    Attributes:
        points: (B, ...) the first points that broke the example, or the last ones: images, or parameters of one.
        broken: (B,) bool.
        stuck: (B,) bool, the gradient of an example that survived was exactly zero at some step.
        undefined: (B,) bool, a gradient was NaN or infinite.
    """

    points: Tensor
    broken: Tensor
    stuck: Tensor
    undefined: Tensor


def with_restarts(proposed: Tensor, restarts: int, ascend: Callable[[int, Tensor], Trail]) -> Trail:
    """Run an ascent up to `restarts` times, each on the examples that still stand.

    Args:
        proposed: (B, ...) what is proposed where nothing is run; consumed.
        restarts: number of runs, at least 1.
        ascend: from the number of the run and the positions (J,) of the standing examples to their trail.
    """
    nobody = torch.zeros(len(proposed), dtype=torch.bool, device=proposed.device)
    broken, stuck, undefined = nobody, nobody.clone(), nobody.clone()
    active = torch.arange(len(proposed), device=proposed.device)
    for restart in range(restarts):
        trail = ascend(restart, active)
        proposed[active] = trail.points
        stuck[active] = trail.stuck
        undefined[active] |= trail.undefined
        broken[active] = trail.broken
        active = active[~trail.broken]
        if not len(active):
            break
    return Trail(proposed, broken, stuck, undefined)
