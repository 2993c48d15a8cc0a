"""Attacks as steps over independent jobs, so that an engine can keep every batch full.

A job is one run of an attack on one example: one restart, or one target class. Jobs in a batch never influence each
other: their noise is keyed by (seed, example key, attack, run), each has its own iteration counter and step size, and
the network gives an image the same logits whatever stands beside it. So the engine may mix jobs of different age, drop
one the moment it has succeeded, and fill its place with the next, without changing any verdict.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from robusteval.attacks.base import Attack, Found, OnVerdict, Standing
from robusteval.attacks.guard import untouched
from robusteval.models.classifier import Classifier
from robusteval.models.search import SearchModel
from robusteval.models.search_plan import Precision
from robusteval.schema.types import Frozen

P = TypeVar("P", bound=Frozen)

State = dict[str, Tensor]
"""Everything a batch of J jobs remembers between two steps; every tensor has J as its first dimension.

Counters that the host must read at each step may stay on the host, so that no step waits for an accelerator. The
engine reads three names itself, all (J,) bool and optional: `STUCK`, `UNDEFINED` and `NEAR`.
"""

STUCK = "stuck"
"""State of a job: its input gradient was exactly zero at some step."""
UNDEFINED = "undefined"
"""State of a job: its input gradient was NaN or infinite at some step."""
NEAR = "near"
"""State of a job: a margin met on the way was within `SearchModel.uncertainty` of the boundary."""


@dataclass(frozen=True)
class Jobs:
    """J jobs that are to begin.

    Attributes:
        images: (J, C, H, W) float32 clean images in [0, 1].
        labels: (J,) int64 true labels.
        keys: (J,) int64 hashes of the example ids.
        runs: (J,) int64 number of the run on the example, from 0: the restart, or the rank of the target class.
        logits: (J, K) float32 clean logits of the original model.
    """

    images: Tensor
    labels: Tensor
    keys: Tensor
    runs: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return int(self.labels.shape[0])


@dataclass(frozen=True)
class Step:
    """What one step of J jobs proposes.

    Attributes:
        candidates: (J, C, H, W) images; read only where `claims` is set.
        claims: (J,) bool, the search model says that the candidate is misclassified and inside the ball. The engine
            verifies with the original model in float32; a job whose claim is refuted goes on.
        finished: (J,) bool, the run has used up its budget.
        forward: (J,) int64 forward passes of this step, if jobs differ in them; else every job has the same share.
        backward: (J,) int64 backward passes, likewise.
    """

    candidates: Tensor
    claims: Tensor
    finished: Tensor
    forward: Tensor | None = None
    backward: Tensor | None = None


class JobAttack(Attack[P]):
    """An attack that is written as steps over jobs; `run` hands it to the engine."""

    slots: ClassVar[int] = 64
    """Jobs in one batch of the network on a CPU, twice as many in low precision, 16 times as many on an accelerator;
    never changes verdicts. Measured on a ResNet-20: the activations of 128 images in float32 no longer fit into the
    cache of a core."""
    many: ClassVar[int] = 1024
    """Examples wanted in one call, so that batches stay full; never changes verdicts."""
    fitting: int | None = None
    """Jobs that were found to fit into memory, once `slots` did not."""
    search: SearchModel | None = None
    """Set by who runs several attacks on one model, to prepare it once; not used where it does not fit the model."""

    @property
    def precision(self) -> Precision:
        """Precision of the search."""
        chosen: Precision = getattr(self.params, "precision", "exact")
        return chosen

    @abstractmethod
    def runs(self, classes: int) -> int:
        """Runs on an example that never breaks: restarts, or target classes."""

    @abstractmethod
    def begin(self, search: SearchModel, jobs: Jobs, seed: int) -> State:
        """Start jobs: draw the start, evaluate it if the method needs that; returns their state."""

    @abstractmethod
    def step(self, search: SearchModel, state: State) -> Step:
        """One iteration of all jobs; updates `state` in place (tensors may be replaced)."""

    def run(self, model: Classifier, images: Tensor, labels: Tensor, *, keys: Tensor, seed: int) -> Tensor:
        """See `Attack.run`."""
        from robusteval.attacks.active import attack_all

        return attack_all(self, model, images, labels, keys=keys, seed=seed)

    def _search(self, model: Classifier, examples: Standing, seed: int, on_verdict: OnVerdict | None) -> Found:
        """Run the jobs; the engine verifies each claim with the original model itself."""
        from robusteval.attacks.active import Engine

        with untouched(self.name, model):
            found = Engine(self, model, examples, seed, on_verdict).run()
        for verdict in found.verdicts:
            self._symptoms.update(verdict.symptoms)
        return found


def joined(first: State | None, second: State) -> State:
    """The jobs of both states, in this order."""
    if first is None:
        return second
    return {name: torch.cat([value, second[name]]) for name, value in first.items()}


def replaced(state: State, rows: Tensor, others: State) -> State:
    """The same jobs, but those at `rows` have made room for `others`."""
    places = _on_devices(rows, state)
    return {name: value.index_copy(0, places[value.device], others[name]) for name, value in state.items()}


def selected(state: State, rows: Tensor) -> State:
    """The jobs at `rows`, in this order."""
    places = _on_devices(rows, state)
    return {name: value.index_select(0, places[value.device]) for name, value in state.items()}


def _on_devices(rows: Tensor, state: State) -> dict[torch.device, Tensor]:
    # What an attack must know without waiting for the device may live on the host.
    return {device: rows.to(device) for device in {value.device for value in state.values()}}


def target_classes(logits: Tensor, runs: Tensor) -> Tensor:
    """Target of a targeted run: the class with the (run + 2)-th largest clean logit (J,) int64.

    For a correctly classified example the largest logit is its label, so run 0 aims at the runner-up.
    """
    ranking = logits.argsort(dim=1, descending=True, stable=True)
    return ranking.gather(1, (runs + 1)[:, None]).squeeze(1)


AnyJobAttack = JobAttack[Any]
