"""The one training loop: batches, schedule, validation, selection, and a state to resume from after every epoch.

On one device a run is a function of its start weights, data, parameters and seed. torch's global generators are seeded
anew at the start of every epoch, so a run that was killed and resumed gives the same weights, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from robusteval.data.batches import DeviceSet
from robusteval.methods import resume
from robusteval.methods.base import Method, TrainingRun, no_progress
from robusteval.methods.optimizers import (
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
)
from robusteval.methods.outcome import TrainingOutcome
from robusteval.methods.parallel import ALONE, Ranks
from robusteval.methods.schedules import scheduled
from robusteval.methods.shared_batch_norm import batch_norm_over
from robusteval.methods.training_batches import TrainingBatches, epoch_seed, training_length
from robusteval.methods.validation import clean_accuracy
from robusteval.models.classifier import Classifier
from robusteval.schema.digest import stable_int
from robusteval.schema.errors import CellError, CorruptRecordError, DataError, UsageError
from robusteval.schema.records import Budget
from robusteval.schema.types import Progress
from robusteval.store.scratch import Scratch


def train(  # noqa: PLR0913 - everything that a run is made of
    method: Method[Any],
    *,
    model: Classifier,
    train: DeviceSet,
    validation: DeviceSet,
    seed: int,
    scratch: Scratch | None = None,
    progress: Progress = no_progress,
    ranks: Ranks = ALONE,
) -> TrainingOutcome:
    """Train `model` in place.

    Args:
        method: what is minimised.
        model: start weights, on the device of the data.
        train: training examples, of one or more domains.
        validation: validation examples of the same domains; the only data that may select.
        seed: seed of batch order, augmentation and noise.
        scratch: where to leave the state after every epoch, and to look for one; without it nothing survives a kill.
        progress: told the finished fraction and what runs now; what it raises stops the run.
        ranks: processes that share the run, each of which calls this with the same arguments.

    Raises:
        UsageError: the batches do not divide among domains or processes.
        DataError: no training or validation examples, or other classes than the model's.
        CellError: the loss is not finite.
        CorruptRecordError: the saved state is damaged.
    """
    for name, data in (("training", train), ("validation", validation)):
        if len(data) == 0:
            raise DataError(f"there are no {name} examples; choose domains that have some")
    if method.params.iterations is not None and method.params.batch_size % len(train.domain_names):
        raise UsageError(
            f"batch_size {method.params.batch_size} does not divide among {len(train.domain_names)} training domains; "
            "with 'iterations' every batch holds equally many examples of each"
        )
    if ranks.count > 1 and not method.divides:
        raise UsageError(f"{type(method).__name__} cannot be divided among {ranks.count} processes; train it in one")
    run = TrainingRun(model=model, train=train, validation=validation, seed=seed, scratch=scratch, ranks=ranks)
    frozen = method.params.batch_norm == "frozen"
    with _global_generators_restored(model.device), batch_norm_over(ranks, model, frozen=frozen):
        return _Loop(method, run, progress).run_all()


class _Loop:
    """One run: the method, the state of the run, and what has been found so far."""

    def __init__(self, method: Method[Any], run: TrainingRun, progress: Progress) -> None:
        self.method = method
        self.params = method.params
        self.run = run
        self.report = progress
        self.history: list[dict[str, float]] = []
        self.best: resume.Best | None = None
        self.best_weights: dict[str, Tensor] = {}
        self.before = run.model.passes.snapshot()
        self.start_epoch = 0
        self.rounds, run.total_iterations = training_length(self.params, len(run.train))
        self.batches = TrainingBatches(self.params, run, self.rounds)

    def run_all(self) -> TrainingOutcome:
        """Prepare, resume, train, select, finish."""
        run, method = self.run, self.method
        share_before, share_after = method.shares
        _seed(run.seed, "prepare")
        run.progress = _within(self.report, 0.0, share_before)
        if not method.replaces_head:
            _check_classes(run)
        method.prepare(run)
        _check_classes(run)
        run.optimizer = build_optimizer(self.params, method.parameters(run))
        self._resume()
        run.progress = _within(self.report, share_before, 1.0 - share_after)
        for run.epoch in range(self.start_epoch, self.rounds):
            self._epoch()
        checkpoints = {} if method.selects_itself else {"last": self._weights(), "training-domain": self.best_weights}
        selected = self._select()
        run.optimizer.zero_grad(set_to_none=True)
        run.model.eval()
        _seed(run.seed, "finish")
        run.progress = _within(self.report, 1.0 - share_after, 1.0)
        method.finish(run)
        run.model.eval()
        return self._outcome(selected, checkpoints)

    def _epoch(self) -> None:
        run, method = self.run, self.method
        if run.ranks.count == 1:
            torch.manual_seed(epoch_seed(run))
        else:  # for networks that draw: each process its own numbers, apart from those that all share
            _seed(run.seed, "epoch", run.epoch, "rank", run.ranks.index)
        method.set_mode(run.model)
        method.begin_epoch(run)
        words = (
            f"epoch {run.epoch + 1}/{self.rounds}"
            if self.params.iterations is None
            else f"{self.params.iterations} steps"
        )
        total = torch.zeros((), device=run.model.device)
        seen = 0
        lr = self.params.lr
        for batch in self.batches.of_epoch():
            run.progress(run.iteration / run.total_iterations, words)
            lr = self._set_learning_rate()
            total += method.step(run, batch).float() * len(batch)
            seen += len(batch)
            run.iteration += 1
        seen = self.run.ranks.total(Budget(forward=seen), total.device).forward
        loss = float(run.ranks.sum_(total).item()) / seen
        if not math.isfinite(loss):
            raise CellError(
                f"training diverged: the loss of epoch {run.epoch + 1} is {loss} (lr {lr:.3g}); use a smaller lr"
            )
        entry = {"epoch": run.epoch + 1.0, "lr": lr, "loss": loss}
        self._validate(entry if self.params.iterations is None else {**entry, "step": float(run.iteration)})
        self._save()
        run.progress(run.iteration / run.total_iterations, words)

    def _set_learning_rate(self) -> float:
        """A method's own curve sees the fraction done after the step, a named schedule the one before it."""
        run = self.run
        assert run.optimizer is not None
        lr = self.method.learning_rate((run.iteration + 1) / run.total_iterations)
        if lr is None:
            lr = scheduled(self.params.schedule, self.params.lr, run.iteration / run.total_iterations)
        set_learning_rate(run.optimizer, lr)
        return lr

    def _validate(self, entry: dict[str, float]) -> None:
        run = self.run
        by_validation = self.params.select == "best-validation"
        with run.selecting(), run.model.mode(training=False):
            score = entry["validation_accuracy"] = clean_accuracy(run.model, run.validation, run.ranks)
            robust = None
            if by_validation or run.epoch + 1 == self.rounds:
                robust = self.method.validation_score(run)
        if robust is not None:
            entry["validation_robust_accuracy"] = robust
            score = robust if by_validation else score
        self.history.append(entry)
        if self.best is None or score > self.best.score:
            self.best = resume.Best(epoch=run.epoch + 1, score=score)
            self.best_weights = self._weights()

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.run.model.state_dict().items()}

    def _save(self) -> None:
        run = self.run
        if run.scratch is None:
            return
        assert run.optimizer is not None
        spent, selection = self._spent(), run.ranks.total(run.selection.snapshot(), run.model.device)
        if not run.ranks.writes:
            return
        finished = resume.Finished(
            epochs=run.epoch + 1,
            iteration=run.iteration,
            history=tuple(self.history),
            best=self.best,
            spent=spent,
            selection=selection,
            diagnostics=run.diagnostics,
            selected_on=run.selected_on,
        )
        groups = {
            "model": run.model.state_dict(),
            "optimizer": optimizer_tensors(run.optimizer),
            "method": self.method.state(),
            "best": self.best_weights,
        }
        run.scratch.put(resume.BLOB, resume.encode(finished, groups))

    def _resume(self) -> None:
        run = self.run
        blob = run.scratch.get(resume.BLOB) if run.scratch is not None else None
        if blob is None:
            return
        assert run.scratch is not None and run.optimizer is not None
        place = str(run.scratch.folder / resume.BLOB)
        finished, groups = resume.decode(blob, place)
        try:
            run.model.load_state_dict(groups["model"])
            load_optimizer_tensors(run.optimizer, groups.get("optimizer", {}))
        except (RuntimeError, ValueError, KeyError) as error:
            first = str(error).splitlines()[0]
            raise CorruptRecordError(
                f"{place}: the saved state is of another model ({first}); delete this file to start the cell again"
            ) from None
        self.method.load_state({k: v.to(run.model.device) for k, v in groups.get("method", {}).items()})
        self.best = finished.best
        self.best_weights = groups.get("best", {})
        self.history = list(finished.history)
        self.start_epoch = finished.epochs
        run.epoch = finished.epochs - 1
        run.iteration = finished.iteration
        run.diagnostics = dict(finished.diagnostics)
        run.selected_on = finished.selected_on
        if run.ranks.writes:  # passes of all processes are added up, and those of earlier attempts count once
            run.model.passes.forward = self.before.forward + finished.spent.forward
            run.model.passes.backward = self.before.backward + finished.spent.backward
            run.selection.forward, run.selection.backward = finished.selection.forward, finished.selection.backward

    def _spent(self) -> Budget:
        """Passes of all processes so far."""
        return self.run.ranks.total(self.run.model.passes.since(self.before), self.run.model.device)

    def _select(self) -> int:
        if self.best is None or self.params.select == "last":
            return self.rounds
        self.run.model.load_state_dict(self.best_weights)
        return self.best.epoch

    def _outcome(self, selected: int, checkpoints: dict[str, dict[str, Tensor]]) -> TrainingOutcome:
        run = self.run
        spent, selection = self._spent(), run.ranks.total(run.selection.snapshot(), run.model.device)
        by = "last"
        if self.params.select == "best-validation":
            by = "validation-robust" if "validation_robust_accuracy" in self.history[0] else "validation"
        return TrainingOutcome(
            model=run.model,
            budget=Budget(forward=spent.forward - selection.forward, backward=spent.backward - selection.backward),
            selection_budget=selection,
            selected_on=run.selected_on or by,
            selected_epoch=selected,
            history=tuple(self.history),
            diagnostics=run.diagnostics,
            checkpoints=checkpoints,
        )


def _check_classes(run: TrainingRun) -> None:
    for name, data in (("training", run.train), ("validation", run.validation)):
        if len(data.classes) != run.model.classes:
            raise DataError(
                f"the {name} data has {len(data.classes)} classes, the model {run.model.classes}; "
                f"start from a model of {len(data.classes)} classes"
            )


def _seed(seed: int, *purpose: str | int) -> None:
    torch.manual_seed(stable_int("train", seed, *purpose))


@contextmanager
def _global_generators_restored(device: torch.device) -> Iterator[None]:
    """Give the caller's random state back at the end."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _within(report: Progress, low: float, high: float) -> Callable[[float, str], None]:
    """A progress function whose [0, 1] is `[low, high]` of the cell."""

    def scaled(fraction: float, what: str) -> None:
        report(low + (high - low) * min(max(fraction, 0.0), 1.0), what)

    return scaled
