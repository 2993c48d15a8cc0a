"""What each attack did to each example: the sidecar of an adversarial evaluation, in columns.

A safetensors file with one row an attack and one column an example in the caller's order; the labels of the attacks
stand in the metadata under `stages`. `label` and `prediction` (N,) are the true class and the clean prediction;
`rounded` (N,) says whether a saved adversarial image is uint8 (1) or float32 (0). Where an attack was not run on an
example, or does not say, and where no image is saved, numbers are -1 and NaN. The outcomes of the evaluation say which
attack broke an example; `run` and `step` say when, and may differ between batch sizes where several runs would break
it; the outcomes do not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robusteval.attacks.base import AttackResult, Verdict
from robusteval.schema.digest import json_digest
from robusteval.schema.errors import CorruptRecordError
from robusteval.store.columns import Columns, read_columns, read_metadata, write_columns
from robusteval.store.scratch import Scratch

BLOB = "details.safetensors"
"""Name in the scratch space."""
COUNTED = ("run", "step", "forward", "backward")
MEASURED = ("margin", "norm")


class Details:
    """Columns of one evaluation, kept in scratch space beside the journal.

    Args:
        scratch: where to keep them, or None.
        question: digest of what is evaluated; columns of another question are ignored.
        stages: labels of the attacks.
        order: (N,) column of the example at each position.

    Attributes:
        columns: the columns.
        restored: whether an earlier attempt left them.

    Raises:
        CorruptRecordError: what an earlier attempt left cannot be read.
    """

    def __init__(
        self, scratch: Scratch | None, question: str, stages: Sequence[str], order: NDArray[np.integer[Any]]
    ) -> None:
        self._scratch = scratch
        self._order = order
        question = json_digest([question, order.tolist()])
        self._metadata = {"question": question, "stages": json.dumps(list(stages))}
        self._rows = {label: row for row, label in enumerate(stages)}
        shape = (len(stages), len(order))
        self.columns: dict[str, NDArray[Any]] = {
            **{name: np.full(len(order), -1, dtype=np.int64) for name in ("label", "prediction", "rounded")},
            **{name: np.full(shape, -1, dtype=np.int64) for name in COUNTED},
            **{name: np.full(shape, np.nan, dtype=np.float32) for name in MEASURED},
        }
        found = None if scratch is None else _read(scratch, question, self.columns)
        self.restored = found is not None
        self.columns = found or self.columns

    def predicted(self, positions: Sequence[int], labels: Sequence[int], classes: Sequence[int]) -> None:
        """Note true labels and clean predictions."""
        self.columns["label"][self._order[list(positions)]] = labels
        self.columns["prediction"][self._order[list(positions)]] = classes

    def hear(self, label: str, verdicts: Iterable[tuple[int, Verdict]]) -> None:
        """Note the verdicts of one attack, each with the example's position."""
        row = self._rows[label]
        for position, verdict in verdicts:
            for name in (*COUNTED, *MEASURED):
                self.columns[name][row, self._order[position]] = getattr(verdict, name)

    def note(self, label: str, positions: Sequence[int], result: AttackResult) -> None:
        """Note what is known of an attack that gives no verdicts."""
        row = self._rows[label]
        where = self._order[list(positions)]
        self.columns["margin"][row, where] = result.margin.cpu().numpy()
        self.columns["norm"][row, where] = result.norm.cpu().numpy()

    def late(self, label: str, steps: int) -> tuple[int, int]:
        """Examples that the attack broke in the second half of a run of `steps`, and examples it says a step of.

        The first step judges the start of a run, so that it takes no part of its length.
        """
        run, step = (self.columns[name][self._rows[label]] for name in ("run", "step"))
        return int(((run >= 0) & (2 * (step - 1) > steps)).sum()), int((step >= 0).sum())

    def saved(self, rounded: Mapping[int, bool]) -> None:
        """Note, by position, whether the saved image of an example is rounded to uint8."""
        self.columns["rounded"][self._order[list(rounded)]] = list(rounded.values())

    def save(self) -> None:
        """Keep what is known; before the journal says that it is done."""
        if self._scratch is not None:
            self._scratch.put(BLOB, write_columns(self.columns, self._metadata))


def _read(scratch: Scratch, question: str, shaped: Columns) -> Columns | None:
    """The saved columns, if they are of this question.

    Raises:
        CorruptRecordError: they cannot be read, or are not those of `shaped`.
    """
    saved = scratch.get(BLOB)
    if saved is None:
        return None
    try:
        if read_metadata(saved).get("question") != question:
            return None
        found = read_columns(saved)[0]
    except CorruptRecordError:
        raise scratch.not_understood(BLOB) from None
    if {name: (part.shape, part.dtype) for name, part in found.items()} != {
        name: (part.shape, part.dtype) for name, part in shaped.items()
    }:
        raise scratch.not_understood(BLOB)
    return found
