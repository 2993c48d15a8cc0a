"""The batches of a training run: how many there are, and those of one epoch, augmented."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import torch

from robusteval.data.augment import build_augmentations
from robusteval.data.batches import Batch
from robusteval.methods.base import MethodParams, TrainingRun
from robusteval.schema.digest import stable_int


class TrainingBatches:
    """The batches of a run, the same for every number of processes.

    Each process puts the whole batch together and augments it before it keeps its rows, so that any augmentation draws
    what it draws in one process.

    Args:
        params: what the method says about batches.
        run: the run.
        rounds: epochs, or validations where `iterations` is given.
    """

    def __init__(self, params: MethodParams, run: TrainingRun, rounds: int) -> None:
        self._params, self._run, self._rounds = params, run, rounds
        self._augment = build_augmentations(params.augment) if params.augment else None
        if run.ranks.count > 1:
            run.ranks.check_batches(self._sizes())

    def of_epoch(self) -> Iterator[Batch]:
        """Own rows of the batches of the epoch under way."""
        run = self._run
        generator = torch.Generator().manual_seed(stable_int("augment", run.seed, run.epoch))
        shared = None
        if run.ranks.count > 1:
            shared = torch.Generator(run.model.device).manual_seed(epoch_seed(run))
        for batch in self._plain():
            images = batch.images if self._augment is None else self._augment(batch.images, generator)
            yield run.ranks.share(replace(batch, images=images), shared)

    def _plain(self) -> Iterator[Batch]:
        run, params = self._run, self._params
        if params.iterations is None:
            batches = run.train.shuffled(params.batch_size, seed=run.seed, epoch=run.epoch)
            return islice(batches, run.total_iterations // self._rounds)
        steps = min(params.evaluate_every, params.iterations - run.iteration)
        return run.train.drawn(params.batch_size, seed=run.seed, epoch=run.epoch, steps=steps)

    def _sizes(self) -> list[int]:
        """Examples of the largest and of the smallest batch."""
        params, n = self._params, len(self._run.train)
        if params.iterations is not None:
            return [params.batch_size]
        full = params.batch_size * (self._run.total_iterations // self._rounds)
        return [min(n, params.batch_size), params.batch_size if full <= n else n % params.batch_size]


def epoch_seed(run: TrainingRun) -> int:
    """Seed of what one process draws from torch's global generators in the epoch under way."""
    return stable_int("train", run.seed, "epoch", run.epoch)


def training_length(params: MethodParams, n: int) -> tuple[int, int]:
    """Validations and optimiser steps of a run on `n` examples."""
    if params.iterations is None:
        full = n // params.batch_size
        return params.epochs, params.epochs * (
            full if params.drop_last and full else steps_per_epoch(n, params.batch_size)
        )
    return math.ceil(params.iterations / params.evaluate_every), params.iterations


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Optimiser steps in one pass over `n` examples; a last batch of one example is dropped."""
    full, rest = divmod(n, batch_size)
    return full + (1 if rest > 1 or n == 1 else 0)
