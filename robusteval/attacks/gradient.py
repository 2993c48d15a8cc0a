"""Gradient ascent inside a ball: the one PGD loop of the project, and the attacks `fgsm` and `pgd`.

FGSM: Goodfellow, Shlens and Szegedy, ICLR 2015, arXiv 1412.6572. PGD: Madry et al., ICLR 2018, arXiv 1706.06083.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from robusteval.attacks.base import Attack
from robusteval.attacks.geometry import project_box, project_into, random_start, unit_l2
from robusteval.attacks.restarts import Trail, with_restarts
from robusteval.attacks.symptoms import NAN_GRADIENT, ZERO_GRADIENT
from robusteval.models.classifier import Classifier
from robusteval.schema.types import Epsilon, Frozen, Norm, PositiveInt, ThreatModel

Loss = Callable[[Tensor, Tensor], Tensor]
"""Maps logits (B, K) and labels (B,) to losses (B,) that the attacker wants to raise."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each example, (B,)."""
    return functional.cross_entropy(logits, labels, reduction="none")


def negative_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest other logit minus the label's logit, (B,); positive once the example is broken. Never saturates."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return others.amax(dim=1) - own


LOSSES: dict[str, Loss] = {"ce": cross_entropy, "margin": negative_margin}


def input_gradient(model: Classifier, images: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Gradient of each example's loss with respect to its own pixels.

    Losses are summed, not averaged, so the gradient of one example does not depend on the batch size. Always in
    float32, also inside an autocast region; no parameter gradient is computed.

    Returns:
        Gradients (B, C, H, W) and logits (B, K), both detached.
    """
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        variable = images.detach().float().requires_grad_()
        logits = model(variable)
        total = loss(logits, labels).sum()
        (gradient,) = torch.autograd.grad(total, variable)
    return gradient.detach(), logits.detach()


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """Direction of steepest ascent with length one in `norm` (linf or l2); zero where the gradient is zero."""
    return gradient.sign() if norm is Norm.LINF else unit_l2(gradient)


def ascend(  # noqa: PLR0913 - the attack of every training method; the names are those of the literature
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    norm: Norm,
    epsilon: float,
    step_size: float,
    steps: int,
    start: Tensor | None = None,
    loss: Loss = cross_entropy,
    project: bool = True,
) -> Tensor:
    """Projected gradient ascent on the loss, without looking at success: what training methods attack with.

    The module's mode is the caller's business; parameter flags and `.grad` are as before afterwards.

    Args:
        model: the classifier, in training or evaluation mode.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) labels whose loss is raised.
        norm: linf or l2.
        epsilon: radius of the ball.
        step_size: length of one step in `norm`.
        steps: number of steps, each one forward and one backward pass.
        start: (B, C, H, W) images to start from; the clean images by default. Clipped to [0, 1].
        loss: per-example loss.
        project: stay inside the ball after every step (N-FGSM does not); the pixel box always holds.

    Returns:
        (B, C, H, W) float32 images in [0, 1], detached.
    """
    clean = images.detach().float()
    current = clean if start is None else project_box(start.detach().float())
    with model.parameters_frozen():
        for _ in range(steps):
            gradient, _ = input_gradient(model, current, labels, loss)
            current = current + step_size * steepest(gradient, norm)
            current = project_into(current, clean, norm, epsilon) if project else project_box(current)
    return current


class PgdParams(Frozen):
    """Hyper-parameters of PGD."""

    steps: PositiveInt = 20
    """Gradient steps of one restart."""
    step_size: Epsilon | None = None
    """Length of a step in the threat's norm, in [0, 1] pixel units; by default 2.5 * epsilon / steps."""
    restarts: PositiveInt = 1
    """Independent runs; only examples that survived the earlier ones are attacked again."""
    random_start: bool = True
    """Start at a random point of the ball; restarts after the first always do."""
    loss: Literal["ce", "margin"] = "ce"
    """What is raised: cross-entropy, or the largest other logit minus the label's."""


def _ascend_until_broken(  # noqa: PLR0913 - `ascend` with early exit
    model: Classifier,
    clean: Tensor,
    labels: Tensor,
    start: Tensor,
    *,
    threat: ThreatModel,
    step_size: float,
    steps: int,
    loss: Loss,
) -> Trail:
    """Ascend from `start`; an example leaves the batch as soon as it is broken, and its broken iterate is kept."""
    epsilon = float(threat.epsilon)
    images, broken = start.clone(), torch.zeros_like(labels, dtype=torch.bool)
    stuck, undefined = torch.zeros_like(broken), torch.zeros_like(broken)
    active = torch.arange(len(labels), device=labels.device)
    current = start
    for _ in range(steps):
        gradient, logits = input_gradient(model, current, labels[active], loss)
        size = gradient.flatten(1).abs().amax(dim=1)
        wrong = logits.argmax(dim=1) != labels[active]
        stuck[active] |= (size == 0) & ~wrong
        undefined[active] |= ~size.isfinite()
        images[active[wrong]] = current[wrong]
        broken[active[wrong]] = True
        active = active[~wrong]
        if not len(active):
            break
        direction = steepest(gradient[~wrong].nan_to_num(0.0, 0.0, 0.0), threat.norm)
        current = project_into(current[~wrong] + step_size * direction, clean[active], threat.norm, epsilon)
    if len(active):
        images[active] = current
        with torch.no_grad():
            broken[active] = model(current).argmax(dim=1) != labels[active]
    return Trail(images, broken, stuck & ~broken, undefined)


class Pgd(Attack[PgdParams]):
    """Projected gradient ascent from keyed random starts, stopping on each example when it is broken.

    Cost: `restarts * (steps + 1)` forward and `restarts * steps` backward passes on an example that survives.
    """

    name = "pgd"
    Params = PgdParams
    norms = frozenset({Norm.LINF, Norm.L2})

    def run(self, model: Classifier, images: Tensor, labels: Tensor, *, keys: Tensor, seed: int) -> Tensor:
        """See `Attack.run`."""
        params, epsilon = self.params, float(self.threat.epsilon)
        step_size = 2.5 * epsilon / params.steps if params.step_size is None else float(params.step_size)

        def run_once(restart: int, active: Tensor) -> Trail:
            clean = images[active]
            start = clean
            if params.random_start or restart:
                purpose = f"attack/{self.name}/{restart}"
                start = random_start(
                    clean, keys[active], norm=self.threat.norm, epsilon=epsilon, seed=seed, purpose=purpose
                )
            return _ascend_until_broken(
                model,
                clean,
                labels[active],
                start,
                threat=self.threat,
                step_size=step_size,
                steps=params.steps,
                loss=LOSSES[params.loss],
            )

        trail = with_restarts(images.clone(), params.restarts, run_once)
        self.observe(ZERO_GRADIENT, trail.stuck)
        self.observe(NAN_GRADIENT, trail.undefined)
        return trail.points

    @classmethod
    def passes(cls, params: PgdParams, classes: int) -> tuple[int, int]:
        """See `Attack.passes`."""
        return params.restarts * (params.steps + 1) + 2, params.restarts * params.steps


class FgsmParams(Frozen):
    """Hyper-parameters of FGSM."""

    loss: Literal["ce", "margin"] = "ce"
    """What is raised: cross-entropy, or the largest other logit minus the label's."""


class Fgsm(Attack[FgsmParams]):
    """One step of length epsilon along the sign of the gradient (l2: along the gradient). Weak by design."""

    name = "fgsm"
    Params = FgsmParams
    norms = frozenset({Norm.LINF, Norm.L2})

    def run(self, model: Classifier, images: Tensor, labels: Tensor, *, keys: Tensor, seed: int) -> Tensor:
        """See `Attack.run`."""
        trail = _ascend_until_broken(
            model,
            images,
            labels,
            images,
            threat=self.threat,
            step_size=float(self.threat.epsilon),
            steps=1,
            loss=LOSSES[self.params.loss],
        )
        self.observe(ZERO_GRADIENT, trail.stuck)
        self.observe(NAN_GRADIENT, trail.undefined)
        return trail.points

    @classmethod
    def passes(cls, params: FgsmParams, classes: int) -> tuple[int, int]:
        """See `Attack.passes`."""
        return 4, 1
