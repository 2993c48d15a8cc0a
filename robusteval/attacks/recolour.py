"""Recolouring: gradient ascent on one map of colours for each image.

After Laidlaw and Feizi, Functional adversarial attacks, NeurIPS 2019, arXiv 1906.00001 (ReColorAdv). Differences: the
grid lies in the images' own colour space (RGB, or grey) instead of CIELUV, the coarseness of the grid takes the place
of the smoothness term in the loss, and the steps are signed instead of Adam's. Recolouring is used alone, never added
to a perturbation of single pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from robusteval.attacks.gradient import LOSSES
from robusteval.attacks.parameter_ascent import ascend_parameters
from robusteval.attacks.restarts import Trail, with_restarts
from robusteval.attacks.symptoms import NAN_GRADIENT, ZERO_GRADIENT
from robusteval.attacks.transform_attack import TransformAttack
from robusteval.data.randomness import keyed_uniform
from robusteval.models.classifier import Classifier
from robusteval.schema.threats import RecolourThreat
from robusteval.schema.types import Epsilon, Frozen, PositiveInt


class RecolourParams(Frozen):
    """Hyper-parameters of recolouring."""

    steps: PositiveInt = 50
    """Gradient steps of one restart."""
    step_size: Epsilon | None = None
    """Length of a step of each node on the [0, 1] scale; by default 2.5 * epsilon / steps."""
    restarts: PositiveInt = 1
    """Independent runs; only examples that survived the earlier ones are attacked again."""
    random_start: bool = True
    """Start at a random map; restarts after the first always do."""
    loss: Literal["ce", "margin"] = "margin"
    """What is raised: cross-entropy, or the largest other logit minus the label's."""


class RecolourAttack(TransformAttack[RecolourParams]):
    """Projected gradient ascent on the displacements of the nodes of a colour grid.

    Cost: `restarts * (steps + 1)` forward and `restarts * steps` backward passes on an example that survives.
    """

    name = "recolour"
    Params = RecolourParams
    family = "recolour"

    def propose(self, model: Classifier, images: Tensor, labels: Tensor, *, keys: Tensor, seed: int) -> Tensor:
        """See `TransformAttack.propose`."""
        limits, params = self.limits, self.params
        assert isinstance(limits, RecolourThreat)
        step_size = 2.5 / params.steps if params.step_size is None else float(params.step_size) / float(limits.epsilon)
        shape = self.transform.shape(tuple(images.shape[1:]))
        proposed = torch.zeros(len(labels), *shape, dtype=torch.float64, device=images.device)

        def run_once(restart: int, active: Tensor) -> Trail:
            start = torch.zeros_like(proposed[active])
            if params.random_start or restart:
                purpose = f"attack/{self.name}/{restart}"
                start = 2.0 * keyed_uniform(keys[active], shape, seed=seed, purpose=purpose).double() - 1.0
            return ascend_parameters(
                model,
                self.transform,
                images[active],
                labels[active],
                start=start,
                step_sizes=[step_size] * params.steps,
                loss=LOSSES[params.loss],
            )

        trail = with_restarts(proposed, params.restarts, run_once)
        self.observe(ZERO_GRADIENT, trail.stuck)
        self.observe(NAN_GRADIENT, trail.undefined)
        return trail.points

    @classmethod
    def passes(cls, params: RecolourParams, classes: int) -> tuple[int, int]:
        """See `Attack.passes`."""
        return params.restarts * (params.steps + 1) + 2, params.restarts * params.steps
