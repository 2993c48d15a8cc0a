"""Square Attack (Andriushchenko, Croce, Flammarion and Hein, ECCV 2020, arXiv 1912.00049): random search on scores.

A query changes the best image so far inside one window (linf), or moves perturbation from one window to another (l2,
and l1 as in Croce and Hein, Mind the box, ICML 2021, arXiv 2103.01208). It is kept if the margin falls. Windows shrink
on a fixed schedule. No gradient is needed, so defences that only hide theirs are no obstacle.

In low precision the rounding of the logits is as large as the steps of the search, which then follows its own noise. A
`fast` search therefore only rejects in low precision, and float32 decides all that comes near the best image so far.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from robusteval.attacks.apgd_moves import into_l1
from robusteval.attacks.gradient import negative_margin
from robusteval.attacks.jobs import JobAttack, Jobs, State, Step
from robusteval.attacks.square_windows import Proposals, WindowPlan, placed_patterns, window_mask, window_sides
from robusteval.models.search import SearchModel
from robusteval.models.search_plan import Precision
from robusteval.schema.types import Access, Fraction01, Frozen, Norm, PositiveInt, ThreatModel

SCREEN_WIDTH = 0.5
"""Low precision rejects a candidate whose margin is worse than the best image's by more than this many root mean square
errors of a logit. Most of that error is the rounding of the weights, which both sides of the screen share. Measured on
64 images of an adversarially trained ResNet-20 after 800 queries: survivors' mean margins differ from those of float32
alone by less than 0.0002, at this width and at 1.0, and float32 decides 17 and 25 % of the candidates."""
_TINY = 1e-12


class SquareParams(Frozen):
    """Hyper-parameters of Square Attack; the defaults are those of AutoAttack."""

    queries: PositiveInt = 5000
    """Queries of one run, the one about the start included."""
    restarts: PositiveInt = 1
    """Independent runs."""
    p_init: Fraction01 = 0.8
    """Share of the image that the first windows cover; halved as in `square_windows.HALVINGS`."""
    precision: Precision = "exact"
    """`exact` searches in float32; `fast` in low precision where that holds. Verdicts are float32 either way."""


class Square(JobAttack[SquareParams]):
    """Square Attack on the margin.

    Cost: `restarts * queries` forward passes on an example that survives, and no backward pass.
    """

    name = "square"
    Params = SquareParams
    norms = frozenset(Norm)
    access: ClassVar[Access] = Access.SCORE
    slots: ClassVar[int] = 256
    """So many that the few which the screen lets through still fill a batch."""

    def __init__(self, params: SquareParams, threat: ThreatModel) -> None:
        super().__init__(params, threat)
        self._plan: WindowPlan | None = None

    def runs(self, classes: int) -> int:
        """See `JobAttack.runs`."""
        return self.params.restarts

    def begin(self, search: SearchModel, jobs: Jobs, seed: int) -> State:
        """See `JobAttack.begin`; costs no pass, the first step asks about the start."""
        plan = self._windows(jobs.images)
        bits, proposals = plan.begin(jobs.keys, jobs.runs, seed)
        waiting = jobs.images.new_full((len(jobs),), torch.inf)
        first = torch.zeros(len(jobs), dtype=torch.int64)
        return {
            **self._room(jobs.images),
            "best": self._start(plan, jobs.images, bits),
            "margin": waiting,
            "low_margin": waiting,
            "labels": jobs.labels,
            "keys": jobs.keys,
            "runs": jobs.runs,
            "windows": proposals.windows,
            "signs": proposals.signs,
            "patterns": proposals.patterns,
            # What the host must know at each step stays with it: no step waits for the device.
            "seed": torch.full_like(first, seed),
            "query": first,
            "drawn": first,
        }

    def step(self, search: SearchModel, state: State) -> Step:
        """See `JobAttack.step`; one query of each job."""
        plan = self._windows(state["best"])
        candidates = self._propose(plan, state, _next_proposals(plan, state))
        margin, wrong, forward = (_decide if search.precision == "exact" else _screen)(search, state, candidates)
        better = margin < state["margin"]
        state["best"] = _adopt(state["best"], candidates, better)
        state["margin"] = torch.where(better, margin, state["margin"])
        state["query"] = state["query"] + 1
        finished = (state["query"] >= self.params.queries).to(better.device)
        return Step(candidates, better & wrong, finished, forward=forward)

    @classmethod
    def passes(cls, params: SquareParams, classes: int) -> tuple[int, int]:
        """See `Attack.passes`."""
        return params.restarts * params.queries + 3, 0

    def _windows(self, images: Tensor) -> WindowPlan:
        _, channels, height, width = images.shape
        shape = (channels, height, width)
        if self._plan is None or self._plan.shape != shape or self._plan.device != images.device:
            self._plan = WindowPlan(shape, self.threat.norm, float(self.params.p_init), images.device)
        return self._plan

    def _room(self, clean: Tensor) -> State:
        """What is needed to keep candidates in the ball and the box."""
        if self.threat.norm is not Norm.LINF:
            return {"clean": clean}
        epsilon = float(self.threat.epsilon)
        return {"low": (clean - epsilon).clamp_(0.0, 1.0), "high": (clean + epsilon).clamp_(0.0, 1.0)}

    def _start(self, plan: WindowPlan, clean: Tensor, bits: Tensor) -> Tensor:
        epsilon = float(self.threat.epsilon)
        if self.threat.norm is Norm.LINF:
            return torch.where(plan.stripes(bits), clean + epsilon, clean - epsilon).clamp_(0.0, 1.0)
        if self.threat.norm is Norm.L2:
            return _to_length(plan.tiles(bits), clean, epsilon)
        return into_l1(plan.tiles(bits), clean, _radii(clean, epsilon))

    def _propose(self, plan: WindowPlan, state: State, proposals: Proposals) -> Tensor:
        """The next candidate of each job, inside the ball and the box."""
        best, epsilon = state["best"], float(self.threat.epsilon)
        if self.threat.norm is Norm.LINF:
            # Any step of 2 epsilon or more takes a pixel from anywhere in the ball to its end.
            signs = proposals.signs.float().mul_(8.0 * epsilon).sub_(4.0 * epsilon)[:, :, None, None]
            rows, columns = window_sides(proposals.windows, *plan.shape[1:])
            return torch.addcmul(best, signs * rows, columns).clamp_(state["low"], state["high"])
        clean = state["clean"]
        moved = _move(plan, best - clean, proposals, epsilon)
        if self.threat.norm is Norm.L2:
            return _to_length(moved, clean, epsilon)
        return into_l1(moved, clean, _radii(clean, epsilon))


def _next_proposals(plan: WindowPlan, state: State) -> Proposals:
    """The proposals of each job's next query; draws ahead when some job has none left."""
    ahead = state["windows"].shape[1]
    if int((state["query"] - state["drawn"]).max()) >= ahead:
        device = state["keys"].device
        drawn = plan.proposals(state["keys"], state["runs"], state["query"].to(device), int(state["seed"][0]))
        state |= {"windows": drawn.windows, "signs": drawn.signs, "patterns": drawn.patterns}
        state["drawn"] = state["query"]
    place = (state["query"] - state["drawn"]).to(state["keys"].device)
    jobs = torch.arange(len(place), device=place.device)
    return Proposals(state["windows"][jobs, place], state["signs"][jobs, place], state["patterns"][jobs, place])


def _decide(search: SearchModel, state: State, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Margins (J,) of the candidates, whether they are misclassified (J,), and forward passes where jobs differ."""
    logits = search.exact_logits(candidates)
    return -negative_margin(logits, state["labels"]), _errs(logits, state["labels"]), None


def _screen(search: SearchModel, state: State, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """The same as `_decide`, with infinite margins for the candidates that low precision rejects.

    Both sides of the screen are low-precision margins, so that an error which candidate and best image share cancels.
    """
    labels = state["labels"]
    logits = search.low_logits(candidates)
    low = -negative_margin(logits, labels)
    if search.low_error == 0:
        return low, _errs(logits, labels), None
    close = low - state["low_margin"] <= SCREEN_WIDTH * search.low_error
    margin, wrong = torch.full_like(low, torch.inf), torch.zeros_like(close)
    rows = close.nonzero().flatten()
    if len(rows):
        logits = search.exact_logits(candidates[rows])
        margin[rows], wrong[rows] = -negative_margin(logits, labels[rows]), _errs(logits, labels[rows])
    state["low_margin"] = torch.where(margin < state["margin"], low, state["low_margin"])
    return margin, wrong, 1 + close.long()


def _errs(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.argmax(dim=1) != labels


def _move(plan: WindowPlan, delta: Tensor, proposals: Proposals, epsilon: float) -> Tensor:
    """Clear the second window and put what it held, and what is left of the radius, into the first.

    The first window keeps the direction of what it held and gets a pattern added. Consumes `delta` (J, C, H, W).

    Returns:
        (J, C, H, W) perturbations, not yet fitted into the ball.
    """
    channels, height, width = plan.shape
    power = 2.0 if plan.norm is Norm.L2 else 1.0
    first = window_mask(proposals.windows[:, :4], height, width)
    either = torch.maximum(first, window_mask(proposals.windows[:, 4:], height, width))
    spent, cleared = _length(delta, power, (1, 2, 3)), delta * either
    freed = _length(cleared, power, (2, 3))
    if plan.norm is Norm.L2:
        wanted = ((epsilon**2 - spent.square()).clamp_min_(0.0) / channels + freed.square()).sqrt()
    else:
        wanted = (epsilon - spent).clamp_min_(0.0) + freed * channels
    held = cleared.mul_(first)
    signs = proposals.signs.float().mul_(2.0).sub_(1.0)[:, :, None, None]
    shapes = placed_patterns(plan.patterns, proposals.patterns, proposals.windows).mul_(first)
    fresh = held.div_(_length(held, power, (2, 3)) + _TINY).addcmul_(shapes, signs)
    return delta.mul_(1.0 - either).addcmul_(fresh, wanted / (_length(fresh, power, (2, 3)) + _TINY))


def _adopt(best: Tensor, candidates: Tensor, better: Tensor) -> Tensor:
    """The candidates where they are better, else the best so far; consumes `best`."""
    if best.device.type == "cpu":
        rows = better.nonzero().flatten()
        return best.index_copy_(0, rows, candidates.index_select(0, rows))
    # Looking up the rows would wait for the accelerator, to which a full copy is cheap.
    return torch.where(better[:, None, None, None], candidates, best)


def _length(values: Tensor, power: float, dims: tuple[int, ...]) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(values, ord=power, dim=dims, keepdim=True)
    return length


def _to_length(delta: Tensor, clean: Tensor, length: float) -> Tensor:
    """Images perturbed along `delta`, by an l2 length that only the box shortens; consumes `delta`."""
    return delta.mul_(length / (_length(delta, 2.0, (1, 2, 3)) + _TINY)).add_(clean).clamp_(0.0, 1.0)


def _radii(clean: Tensor, epsilon: float) -> Tensor:
    # A sum in float32 may exceed the radius by its rounding, so it aims a little lower.
    return clean.new_full((len(clean),), epsilon * (1.0 - 1e-6))
