"""FAB: minimal perturbations by steps onto the linearised decision boundary (Croce and Hein, ICML 2020).

arXiv 1907.02044. With z the logits, y the label and x the clean image, an iterate x_i moves onto the hyperplane where
the linearised difference z_k - z_y is zero (`robusteval.attacks.hyperplane`), d_i from x_i and d_0 from x:

    x_{i+1} = clip((1 - alpha) (x_i + eta d_i) + alpha (x + eta d_0)),
    alpha = min(||d_i|| / (||d_i|| + ||d_0||), alpha_max).

An iterate that is misclassified is pulled back to x + beta (x_{i+1} - x) before the next step. `fab` steps to the
nearest of the K - 1 hyperplanes, `fab-t` to that of one target class a run, as in AutoAttack (Croce and Hein, ICML
2020, arXiv 2003.01690). The published code minimises the norm until its iterations are used up and compares with
epsilon at the end; here a run ends at its first misclassified iterate inside the ball, which gives the same verdicts.

Iterates lie on the decision boundary, where low precision cannot tell the side: a run in bfloat16 alone ends elsewhere
or nowhere. But a run forgets where it began. A `fast` search walks in low precision first and in float32 afterwards,
and ends where float32 alone does (`COARSE`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, TypeVar

import torch
from torch import Tensor

from robusteval.attacks.geometry import perturbation_norm, project_box, unit_l2
from robusteval.attacks.hyperplane import row_blocks, step_to_hyperplane
from robusteval.attacks.jobs import STUCK, UNDEFINED, JobAttack, Jobs, State, Step, selected, target_classes
from robusteval.data.randomness import keyed_normal, keyed_uniform
from robusteval.models.search import SearchModel
from robusteval.models.search_plan import Precision
from robusteval.schema.params import LATER
from robusteval.schema.types import Fraction01, Frozen, Norm, PositiveFloat, PositiveInt

SHORTEST_STEP = 1e-8
"""Floor of the two step lengths in alpha, as published; it decides where both are zero."""
COARSE = 0.6
"""Share of a run's iterations that a `fast` search makes in low precision. Measured against float32 alone, in runs of
100 iterations against two targets on an undefended ResNet-20: the smallest norms found differ by -0.5 and 0.1 % on
average, where 0.75 gives -0.3 and 0.5 %, and low precision throughout misses some examples altogether."""
SETTLING = 40
"""Iterations in float32 that end a run of a `fast` search in any case; runs as short are float32 alone."""
FLAT = 1e-12
"""Added to the norm of a gradient, as published, so that a flat class is far away instead of undefined."""


class FabParams(Frozen):
    """Hyper-parameters of FAB, by default as published."""

    steps: PositiveInt = 100
    """Iterations of one run: two forward passes each, and one backward pass a hyperplane."""
    restarts: PositiveInt = 1
    """Runs; the first starts at the clean image, the others at random at a distance of epsilon / 2."""
    alpha_max: Fraction01 = 0.1
    """Largest weight of the step that starts at the clean image."""
    eta: PositiveFloat = 1.05
    """How far a step goes: beyond 1 it overshoots the hyperplane."""
    beta: Fraction01 = 0.9
    """How much of the perturbation a misclassified iterate keeps."""
    precision: Annotated[Precision, LATER] = "exact"
    """`exact` searches in float32; `fast` begins in low precision where that holds. Verdicts are float32 either way."""


class TargetedFabParams(FabParams):
    """Hyper-parameters of targeted FAB, by default as published."""

    targets: PositiveInt = 9
    """Target classes, those with the largest clean logits; at most K - 1 are used."""


P = TypeVar("P", bound=FabParams)
Part = tuple[SearchModel, Tensor | None]
"""A network and the positions, on the host, of the jobs it works for; None for all of them."""
Boundary = tuple[Tensor, Tensor, Tensor]
"""Logits (J, K), the difference z_k - z_y to the class that is aimed at (J,), and its gradient (J, C, H, W)."""


class FabIteration(JobAttack[P]):
    """What targeted and untargeted FAB share: everything but the choice of the hyperplane."""

    norms = frozenset(Norm)

    @abstractmethod
    def boundary(self, search: SearchModel, state: State) -> Boundary:
        """Linearise the class that each job aims at, at its iterate."""

    def begin(self, search: SearchModel, jobs: Jobs, seed: int) -> State:
        """See `JobAttack.begin`; no pass is spent."""
        start, unset = self._start(jobs, seed), torch.zeros_like(jobs.labels, dtype=torch.bool)
        return {
            "clean": jobs.images,
            "current": start,
            "norm": perturbation_norm(start - jobs.images, self.threat.norm),
            "labels": jobs.labels,
            # On the host, where it decides what is computed without waiting for the device.
            "iteration": torch.zeros(len(jobs), dtype=torch.int64),
            STUCK: unset,
            UNDEFINED: unset,
        }

    def step(self, search: SearchModel, state: State) -> Step:
        """See `JobAttack.step`."""
        epsilon = float(self.threat.epsilon)
        clean, current, labels = state["clean"], state["current"], state["labels"]
        parts = self._parts(search, state["iteration"])
        logits, gap, normal = _merged(parts, [self.boundary(model, _taken(state, rows)) for model, rows in parts])
        # The iterate before the step may be inside already: pulled back by beta and still misclassified.
        at_rest = (logits.argmax(dim=1) != labels) & (state["norm"] <= epsilon)
        size = normal.flatten(1).abs().amax(dim=1)
        state[STUCK] = state[STUCK] | (size == 0)
        state[UNDEFINED] = state[UNDEFINED] | ~size.isfinite()
        moved = self._moved(clean, current, gap, normal)
        (reached,) = _merged(parts, [(model.logits(moved if rows is None else moved[rows]),) for model, rows in parts])
        wrong = reached.argmax(dim=1) != labels
        norm = perturbation_norm(moved - clean, self.threat.norm)
        arrived = wrong & (norm <= epsilon)
        kept = torch.where(wrong, self.params.beta, 1.0)
        state["current"], state["norm"] = torch.lerp(clean, moved, _column(kept, clean)), norm * kept
        state["iteration"] = state["iteration"] + 1
        candidates = torch.where(_column(arrived, clean), moved, current)
        finished = (state["iteration"] >= self.params.steps).to(labels.device)
        return Step(candidates, at_rest | arrived, finished)

    def _parts(self, search: SearchModel, iterations: Tensor) -> list[Part]:
        """The networks that take the next step, and the jobs for which they do; one network takes all if it can."""
        coarse = iterations < min(COARSE * self.params.steps, self.params.steps - SETTLING)
        if search.precision == "exact" or not bool(coarse.any()):
            return [(search.at("exact"), None)]
        if bool(coarse.all()):
            return [(search, None)]
        return [(search, coarse.nonzero().flatten()), (search.at("exact"), (~coarse).nonzero().flatten())]

    def _start(self, jobs: Jobs, seed: int) -> Tensor:
        """Clean images for the first restart; keyed random points at the distance epsilon / 2 for the others."""
        start = jobs.images
        if self.params.restarts == 1:
            return start
        for run in sorted(set(jobs.runs.tolist())):
            if run % self.params.restarts:
                drawn = self._random_start(jobs.images, jobs.keys, seed, f"attack/{self.name}/{run}")
                start = torch.where(_column(jobs.runs == run, start), drawn, start)
        return start

    def _random_start(self, clean: Tensor, keys: Tensor, seed: int, purpose: str) -> Tensor:
        shape, norm = tuple(clean.shape[1:]), self.threat.norm
        if norm is Norm.LINF:
            noise = 2.0 * keyed_uniform(keys, shape, seed=seed, purpose=purpose) - 1.0
        else:
            noise = keyed_normal(keys, shape, seed=seed, purpose=purpose)
        noise = unit_l2(noise) if norm is Norm.L2 else noise / _column(_length(noise.flatten(1), norm), noise)
        return project_box(clean + 0.5 * float(self.threat.epsilon) * noise)

    def _moved(self, clean: Tensor, current: Tensor, gap: Tensor, normal: Tensor) -> Tensor:
        """One iteration (J, C, H, W): from the iterate and from the clean image to the same hyperplane, and a blend."""
        points, normals = torch.stack([current, clean]).flatten(2), normal.flatten(1)
        moved = torch.empty_like(points[0])
        for rows in row_blocks(normals):
            moved[rows] = self._blend(points[:, rows], gap[rows].nan_to_num(), normals[rows].nan_to_num(0.0, 0.0, 0.0))
        return moved.view_as(clean)

    def _blend(self, points: Tensor, gap: Tensor, normals: Tensor) -> Tensor:
        """The same for points (2, J, d), the iterate and the clean image; the gap (J,) is the iterate's."""
        clean_gap = gap + (normals * (points[1] - points[0])).sum(dim=1)
        steps = step_to_hyperplane(points, normals, torch.stack([gap, clean_gap]), self.threat.norm)
        lengths = _length(steps, self.threat.norm).clamp_min(SHORTEST_STEP)
        alpha = (lengths[0] / lengths.sum(dim=0)).clamp_max(self.params.alpha_max)[:, None]
        near, far = points + self.params.eta * steps
        return project_box(near * (1.0 - alpha) + far * alpha)


class Fab(FabIteration[FabParams]):
    """Untargeted FAB: the nearest hyperplane of all other classes.

    Cost: 2 * steps forward and (K - 1) * steps backward passes a restart on an example that survives.
    """

    name = "fab"
    Params = FabParams

    def runs(self, classes: int) -> int:
        """See `JobAttack.runs`."""
        return self.params.restarts

    def boundary(self, search: SearchModel, state: State) -> Boundary:
        """Of all classes the one whose hyperplane is nearest, were there no box."""
        labels, norm = state["labels"], self.threat.norm
        others = torch.arange(search.classes - 1, device=labels.device).expand(len(labels), -1)
        others = others + (others >= labels[:, None])

        def differences(logits: Tensor) -> Tensor:
            return logits.gather(1, others) - logits.gather(1, labels[:, None])

        logits, gaps, gradients = search.each_gradient(state["current"], differences)
        nearest = torch.full_like(gaps[:, 0], torch.inf)
        gap, normal = torch.zeros_like(nearest), torch.full_like(state["current"], torch.nan)
        # One class at a time: all K - 1 gradients of a batch at once would not fit for 1,000 classes.
        for candidate_gap, gradient in zip(gaps.unbind(dim=1), gradients, strict=True):
            distance = candidate_gap.abs() / (FLAT + _length(gradient.flatten(1), _DUAL[norm]))
            nearer = distance < nearest
            nearest = torch.where(nearer, distance, nearest)
            gap = torch.where(nearer, candidate_gap, gap)
            normal = torch.where(_column(nearer, normal), gradient, normal)
        return logits, gap, normal

    @classmethod
    def passes(cls, params: FabParams, classes: int) -> tuple[int, int]:
        """See `Attack.passes`."""
        return 2 * params.steps * params.restarts + 4, (classes - 1) * params.steps * params.restarts


class TargetedFab(FabIteration[TargetedFabParams]):
    """Targeted FAB: one run a target class and restart, from the runner-up of the clean image downwards.

    Cost: 2 * steps forward and steps backward passes a run on an example that survives.
    """

    name = "fab-t"
    Params = TargetedFabParams

    def runs(self, classes: int) -> int:
        """See `JobAttack.runs`."""
        return _targeted_runs(self.params, classes)

    def begin(self, search: SearchModel, jobs: Jobs, seed: int) -> State:
        """See `JobAttack.begin`."""
        targets = target_classes(jobs.logits, jobs.runs // self.params.restarts)
        return super().begin(search, jobs, seed) | {"targets": targets}

    def boundary(self, search: SearchModel, state: State) -> Boundary:
        """The hyperplane of the target class."""
        labels, targets = state["labels"][:, None], state["targets"][:, None]
        return search.gradient(state["current"], lambda logits: _difference(logits, targets, labels))

    @classmethod
    def passes(cls, params: TargetedFabParams, classes: int) -> tuple[int, int]:
        """See `Attack.passes`."""
        runs = _targeted_runs(params, classes)
        return 2 * params.steps * runs + 4, params.steps * runs


def _taken(state: State, rows: Tensor | None) -> State:
    return state if rows is None else selected(state, rows)


def _merged(parts: list[Part], found: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What the networks found, in the order of the jobs."""
    rows = [rows for _, rows in parts if rows is not None]
    if not rows:
        return found[0]
    order = torch.cat(rows).argsort().to(found[0][0].device)
    return tuple(torch.cat(pieces)[order] for pieces in zip(*found, strict=True))


_DUAL = {Norm.LINF: Norm.L1, Norm.L2: Norm.L2, Norm.L1: Norm.LINF}


def _targeted_runs(params: TargetedFabParams, classes: int) -> int:
    return min(params.targets, classes - 1) * params.restarts


def _difference(logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    return (logits.gather(1, targets) - logits.gather(1, labels)).squeeze(1)


def _length(vectors: Tensor, norm: Norm) -> Tensor:
    """Norm of each row (...) of vectors (..., d)."""
    if norm is Norm.LINF:
        return vectors.abs().amax(dim=-1)
    length: Tensor = torch.linalg.vector_norm(vectors, ord=2 if norm is Norm.L2 else 1, dim=-1)
    return length


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *([1] * (like.ndim - 1)))
