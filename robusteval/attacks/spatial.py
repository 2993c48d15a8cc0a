"""Rotations and translations: the worst of a grid, of random tries, and of an ascent from there.

Engstrom, Tran, Tsipras, Schmidt and Madry, Exploring the landscape of spatial robustness, ICML 2019, arXiv 1712.02779.
Gradients are of little use in this landscape; the grid, 31 angles by 5 by 5 translations, is the attack of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robusteval.attacks.base import judged, original_logits
from robusteval.attacks.gradient import negative_margin
from robusteval.attacks.parameter_ascent import ascend_parameters
from robusteval.attacks.symptoms import NAN_GRADIENT, ZERO_GRADIENT
from robusteval.attacks.transform_attack import TransformAttack
from robusteval.data.randomness import keyed_uniform
from robusteval.models.classifier import Classifier
from robusteval.schema.threats import SpatialThreat
from robusteval.schema.types import Access, Frozen, NonNegativeInt, PositiveInt

TOGETHER, ACCELERATED = 128, 1024
"""Images rendered and predicted at a time, on a CPU and on an accelerator, where few examples are left; never changes
verdicts."""
FIRST_STEP = 0.25
"""Length of the first gradient step in shares of the limits; the steps shrink linearly to nothing."""


class SpatialParams(Frozen):
    """Parameters of the spatial attack."""

    angles: PositiveInt = 31
    """Angles of the grid, evenly spaced from the largest rotation one way to the largest the other way."""
    shifts: PositiveInt = 5
    """Translations of the grid in each direction, evenly spaced likewise."""
    random: NonNegativeInt = 0
    """Random rotations with translations tried after the grid, for each example its own."""
    steps: NonNegativeInt = 0
    """Gradient steps from the worst of all tries; with 0 the attack only needs the model's decisions."""


@dataclass
class _Worst:
    """The worst parameters met so far: (N, 3), their margins (N,), and whether they broke the example (N,)."""

    parameters: Tensor
    margin: Tensor
    broken: Tensor


class SpatialAttack(TransformAttack[SpatialParams]):
    """Try every rotation with translation of a grid, the largest first, until the model errs.

    Cost on an example that survives: `angles * shifts ** 2 + random` forward passes, and with an ascent `steps + 1`
    forward and `steps` backward passes more.
    """

    name = "spatial"
    Params = SpatialParams
    family = "spatial"
    access = Access.DECISION

    @property
    def needs(self) -> Access:
        """See `Attack.needs`."""
        return Access.WHITE_BOX if self.params.steps else Access.DECISION

    def propose(self, model: Classifier, images: Tensor, labels: Tensor, *, keys: Tensor, seed: int) -> Tensor:
        """See `TransformAttack.propose`."""
        n = len(labels)
        worst = _Worst(
            parameters=torch.zeros(n, 3, dtype=torch.float64, device=images.device),
            margin=images.new_full((n,), float("inf")),
            broken=torch.zeros_like(labels, dtype=torch.bool),
        )
        grid = self._grid().to(images.device)
        self._try(model, images, labels, worst, grid.expand(n, -1, -1))
        if self.params.random:
            draws = keyed_uniform(keys, (self.params.random, 3), seed=seed, purpose=f"attack/{self.name}/random")
            self._try(model, images, labels, worst, 2.0 * draws.double() - 1.0)
        if self.params.steps:
            self._ascend(model, images, labels, worst)
        return worst.parameters

    def _grid(self) -> Tensor:
        """Parameters (G, 3), the furthest from the clean image first; a limit of zero leaves nothing to vary."""
        limits = self.limits
        assert isinstance(limits, SpatialThreat)
        angles = _evenly(self.params.angles if limits.rotation > 0 else 1)
        shifts = _evenly(self.params.shifts if limits.translation > 0 else 1)
        grid = torch.cartesian_prod(angles, shifts, shifts)
        return grid[grid.abs().sum(dim=1).argsort(descending=True, stable=True)]

    @torch.no_grad()
    def _try(self, model: Classifier, images: Tensor, labels: Tensor, worst: _Worst, candidates: Tensor) -> None:
        """Look at (N, K, 3) candidates in their order; an example that is broken is looked at no more."""
        together = TOGETHER if images.device.type == "cpu" else ACCELERATED
        first, count = 0, candidates.shape[1]
        while first < count:
            active = (~worst.broken).nonzero().flatten()
            if not len(active):
                return
            width = min(count - first, max(1, together // len(active)))
            some = candidates[active, first : first + width]
            first += width
            rendered = self.transform.render(images[active].repeat_interleave(width, dim=0), some.flatten(0, 1))
            margin, wrong = judged(original_logits(model, rendered), labels[active].repeat_interleave(width))
            margin = margin.nan_to_num(nan=float("-inf")).view(-1, width)
            wrong = wrong.view(-1, width)
            chosen = torch.where(wrong.any(dim=1), wrong.int().argmax(dim=1), margin.argmin(dim=1))[:, None]
            lowest, fell = margin.gather(1, chosen)[:, 0], wrong.any(dim=1)
            better = fell | (lowest < worst.margin[active])
            picked = some.gather(1, chosen[:, :, None].expand(-1, 1, 3))[:, 0]
            worst.parameters[active[better]] = picked[better]
            worst.margin[active[better]] = lowest[better]
            worst.broken[active] = fell

    def _ascend(self, model: Classifier, images: Tensor, labels: Tensor, worst: _Worst) -> None:
        left = (~worst.broken).nonzero().flatten()
        if not len(left):
            return
        steps = self.params.steps
        trail = ascend_parameters(
            model,
            self.transform,
            images[left],
            labels[left],
            start=worst.parameters[left],
            step_sizes=[FIRST_STEP * (1.0 - step / steps) for step in range(steps)],
            loss=negative_margin,
        )
        worst.parameters[left[trail.broken]] = trail.points[trail.broken]
        self.observe(ZERO_GRADIENT, trail.stuck)
        self.observe(NAN_GRADIENT, trail.undefined)

    @classmethod
    def passes(cls, params: SpatialParams, classes: int) -> tuple[int, int]:
        """See `Attack.passes`."""
        tries = params.angles * params.shifts**2 + params.random
        return tries + 2 + (params.steps + 1 if params.steps else 0), params.steps


def _evenly(count: int) -> Tensor:
    """So many shares of a limit, from -1 to 1; a single one is 0."""
    return torch.linspace(-1.0, 1.0, count, dtype=torch.float64) if count > 1 else torch.zeros(1, dtype=torch.float64)
