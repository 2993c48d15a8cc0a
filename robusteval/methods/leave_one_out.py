"""Selection by leave-one-domain-out cross-validation (Gulrajani and Lopez-Paz, ICLR 2021, arXiv 2007.01434).

For each training domain V of a run, another run is trained without V and measured on V at every validation. The scored
run keeps the weights of the validation at which these accuracies, averaged over the domains V, are highest. With one
setting of the parameters this is their rule: the setting is given, the step is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robusteval.data.batches import DeviceSet
from robusteval.methods.base import Method, TrainingRun
from robusteval.methods.validation import clean_accuracy
from robusteval.schema.errors import CellError
from robusteval.schema.protocols import LEAVE_ONE_OUT

WATCHED = "watched"
"""Diagnostic of a run that is trained for selection: domain to its accuracy after every validation."""
_KEPT = "kept/"


def chosen_validation(accuracies: Sequence[Sequence[float]]) -> int:
    """The validation with the highest mean accuracy, counted from 1; the first of several.

    Args:
        accuracies: for each left-out domain, its accuracy after every validation.

    Raises:
        CellError: the runs were validated a different number of times.
    """
    if not accuracies or len({len(one) for one in accuracies}) != 1 or not accuracies[0]:
        raise CellError(
            f"the runs that select were validated {', '.join(str(len(one)) for one in accuracies)} times, which has to "
            f"be one number; run the suite again with --resume all"
        )
    return int(np.argmax(np.mean(accuracies, axis=0))) + 1


def watching(method: Method[Any], watched: Mapping[str, DeviceSet]) -> Method[Any]:
    """The method, measured on domains that it is not trained on after every validation; they select nothing in it."""
    found: _Watching = _extended(method, _Watching)
    found.watched = dict(watched)
    found.right = {name: [] for name in watched}
    return found


def keeping(method: Method[Any], validation: int) -> Method[Any]:
    """The method with the weights after one validation, counted from 1, as its result."""
    found: _Keeping = _extended(method, _Keeping)
    found.validation = validation
    found.kept = {}
    return found


def _extended(method: Method[Any], extension: Any) -> Any:
    """A method of the same recipe and parameters whose hooks an extension sees first.

    What is left of the choice to the training loop is `last`, so that `finish` is handed the final weights.
    """
    own = type(method)
    kind = type(own.__name__, (extension, own), {"__module__": own.__module__})
    return kind(method.params.model_copy(update={"select": "last"}))


class _AfterValidations(Method[Any]):
    """Hooks that see the weights after every validation: the next epoch begins, or the last one has ended."""

    def validated(self, run: TrainingRun, count: int) -> None:
        """Called with the weights after the `count`-th validation."""

    def selected(self, run: TrainingRun) -> None:
        """Called after the last validation, before the recipe finishes."""

    def begin_epoch(self, run: TrainingRun) -> None:
        """See `Method.begin_epoch`."""
        if run.epoch:
            self.validated(run, run.epoch)
        super().begin_epoch(run)

    def finish(self, run: TrainingRun) -> None:
        """See `Method.finish`."""
        self.validated(run, run.epoch + 1)
        self.selected(run)
        super().finish(run)


class _Watching(_AfterValidations):
    watched: dict[str, DeviceSet]
    right: dict[str, list[int]]

    def validated(self, run: TrainingRun, count: int) -> None:
        with run.selecting():
            for name, data in self.watched.items():
                self.right[name].append(round(clean_accuracy(run.model, data, run.ranks) * len(data)))

    def selected(self, run: TrainingRun) -> None:
        run.diagnostics[WATCHED] = {
            name: [right / len(self.watched[name]) for right in counts] for name, counts in self.right.items()
        }

    def state(self) -> dict[str, Tensor]:
        counts = {f"{WATCHED}/{name}": torch.tensor(right, dtype=torch.int64) for name, right in self.right.items()}
        return super().state() | counts

    def load_state(self, state: dict[str, Tensor]) -> None:
        own = {name: state.pop(f"{WATCHED}/{name}") for name in self.watched}
        self.right = {name: counts.tolist() for name, counts in own.items()}
        super().load_state(state)


class _Keeping(_AfterValidations):
    validation: int
    kept: dict[str, Tensor]

    def validated(self, run: TrainingRun, count: int) -> None:
        if count == self.validation:
            self.kept = {name: value.detach().clone() for name, value in run.model.state_dict().items()}

    def selected(self, run: TrainingRun) -> None:
        if not self.kept:
            raise CellError(f"validation {self.validation} was chosen, but the run had {run.epoch + 1}")
        run.model.load_state_dict(self.kept)
        run.selected_on = LEAVE_ONE_OUT

    def state(self) -> dict[str, Tensor]:
        return super().state() | {_KEPT + name: value for name, value in self.kept.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        own = [name for name in state if name.startswith(_KEPT)]
        self.kept = {name.removeprefix(_KEPT): state.pop(name) for name in own}
        super().load_state(state)
