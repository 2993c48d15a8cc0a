"""One row an example: what an evaluation found, as columns that can be written to any table.

Rows come from a record and its sidecar alone; no model and no attack runs again. Over some of the attacks the worst
case is known without a new run wherever each of them was run on the example or one of them broke it. In a cascade an
attack never saw what an earlier one broke, so there the worst case over the later ones alone stays open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robusteval.schema.errors import CorruptRecordError, UsageError, unknown_name
from robusteval.schema.records import ResultRecord
from robusteval.scoring.outcomes import domains_of, evaluation_of, outcome_of
from robusteval.stats.intervals import wilson
from robusteval.store.columns import Columns, read_columns, text_list

Value = str | int | float | bool | None
"""One cell of the table; None where nothing is known or nothing applies."""
ExampleColumns = dict[str, list[Value]]
"""Values by column name, one an example."""

CLEAN, ROBUST = "clean", "robust"
ATTACKED = "attacked/"
"""Beginning of the names of outcomes that say which examples an attack was run on, where it saw only a share."""
STANDS = "stands/"
"""Beginning of the names of columns that say whether an example stands after an attack."""


@dataclass(frozen=True)
class WorstCase:
    """Robust accuracy over some of the attacks.

    Attributes:
        attacks: the attacks.
        n: examples.
        standing: examples that are known to stand.
        unknown: examples that may stand or not, since an attack was not run on them.
    """

    attacks: tuple[str, ...]
    n: int
    standing: int
    unknown: int

    def __str__(self) -> str:
        least, most = self.standing, self.standing + self.unknown
        low, high = wilson(least, self.n)[0], wilson(most, self.n)[1]
        value = f"{100 * least / self.n:.1f}" + (f" to {100 * most / self.n:.1f}" if self.unknown else "")
        text = f"robust accuracy over {', '.join(self.attacks)}: {value} % [{100 * low:.1f}, {100 * high:.1f}] "
        text += f"(n={self.n})"
        if self.unknown:
            text += (
                f"; {self.unknown} examples are open, since not all of these attacks were run on them "
                f"(cascade: false in the suite's threat runs every attack on everything)"
            )
        return text


@dataclass(frozen=True)
class _Verdicts:
    """The attacks of a record on N examples. Rows are attacks in the order in which they ran.

    Attributes:
        labels: names of the A attacks.
        clean: (N,) bool, predicted right.
        stands: (A, N) bool, outcomes.
        ran: (A, N) bool, whether the attack was run on the example.
        broke: (A, N) bool, whether it broke it.
        details: the sidecar; empty if there is none.
    """

    labels: tuple[str, ...]
    clean: NDArray[np.bool_]
    stands: NDArray[np.bool_]
    ran: NDArray[np.bool_]
    broke: NDArray[np.bool_]
    details: Columns

    def chosen(self, attacks: Sequence[str] | None) -> list[int]:
        """Rows of the attacks with these names, in the order in which they ran; all of them by default."""
        if attacks is None:
            return list(range(len(self.labels)))
        for name in attacks:
            if name not in self.labels:
                raise UsageError(unknown_name("attack of this record", name, self.labels))
        return [row for row, label in enumerate(self.labels) if label in attacks]


def example_columns(
    record: ResultRecord,
    ids: Sequence[str],
    groups: Sequence[str] | None,
    sidecar: bytes | None,
    attacks: Sequence[str] | None = None,
) -> ExampleColumns:
    """One row an example of an evaluation.

    Columns: `cell`, `example`, `group`, `domain`, `label`, `prediction` (class numbers), `clean` (predicted right),
    `image` (form of the saved adversarial image, `uint8` or `float32`, if the record keeps images),
    `robust` (right after all attacks), `broken_by` (the first attack that broke it, `clean` if none was needed, empty
    if it stands), `run` and `step` of that attack, `margin` (on the adversarial image, or on the clean one of a
    survivor), `norm` of the perturbation, `forward` and `backward` passes of all attacks, and for each attack
    `stands/<attack>`.

    Args:
        record: record of an eval cell.
        ids: example ids of its slice.
        groups: their groups; None if every example stands alone.
        sidecar: its details, if it has any.
        attacks: only these; `robust` and what follows are about them, and empty where that is not known.

    Raises:
        UsageError: an attack that the record does not have.
        CorruptRecordError: the parts do not fit each other.
    """
    domains = domains_of(record)
    if len(ids) != len(domains) or (groups is not None and len(groups) != len(ids)):
        raise CorruptRecordError(f"record {record.cell_key[:12]}: the id list names {len(ids)} of {len(domains)}")
    verdicts = _verdicts(record, sidecar)
    rows = verdicts.chosen(attacks)
    columns: ExampleColumns = {
        "cell": [record.cell_key] * len(ids),
        "example": list(ids),
        "group": list(groups if groups is not None else ids),
        "domain": list(domains),
        **_classes(verdicts),
        CLEAN: verdicts.clean.tolist(),
    }
    if evaluation_of(record).images and "rounded" in verdicts.details:
        forms = {0: "float32", 1: "uint8"}
        columns["image"] = [forms.get(value) for value in verdicts.details["rounded"].tolist()]
    if verdicts.labels:
        columns |= _found(verdicts, rows)
        columns |= {STANDS + verdicts.labels[row]: verdicts.stands[row].tolist() for row in rows}
    return columns


def worst_case(record: ResultRecord, sidecar: bytes | None, attacks: Sequence[str]) -> WorstCase:
    """Robust accuracy over some of the attacks of a record, as far as it is known without a new run.

    Raises:
        UsageError: an attack that the record does not have.
    """
    verdicts = _verdicts(record, sidecar)
    rows = verdicts.chosen(attacks)
    robust = _robust(verdicts, rows)
    return WorstCase(
        attacks=tuple(verdicts.labels[row] for row in rows),
        n=len(robust),
        standing=sum(value is True for value in robust),
        unknown=sum(value is None for value in robust),
    )


def joined(parts: Sequence[tuple[Mapping[str, Value], ExampleColumns]]) -> ExampleColumns:
    """Several tables under each other, each with constant columns before its own; absent columns are empty."""
    names: dict[str, None] = {}
    for constants, columns in parts:
        names |= dict.fromkeys([*constants, *(name for name in columns if not name.startswith(STANDS))])
    for _, columns in parts:
        names |= dict.fromkeys(columns)
    table: ExampleColumns = {name: [] for name in names}
    for constants, columns in parts:
        n = len(columns["example"])
        for name in table:
            table[name] += columns[name] if name in columns else [constants.get(name)] * n
    return table


def _verdicts(record: ResultRecord, sidecar: bytes | None) -> _Verdicts:
    n = record.cell.data.n
    clean = np.array(outcome_of(record, CLEAN), dtype=bool)
    outcomes = evaluation_of(record).outcomes
    labels = tuple(name for name in outcomes if name not in (CLEAN, ROBUST) and not name.startswith(ATTACKED))
    stands = np.array([outcome_of(record, name) for name in labels], dtype=bool).reshape(len(labels), n)
    before = _stood_before(record, labels, clean, stands)
    details = _details(record, sidecar, labels) if sidecar is not None and labels else {}
    broke = before & ~stands
    ran = before.copy() if not details else broke | (np.isfinite(details["margin"]) & before)
    for row, label in enumerate(labels):
        if ATTACKED + label in outcomes:
            ran[row] &= np.array(outcome_of(record, ATTACKED + label), dtype=bool)
    return _Verdicts(labels, clean, stands, ran, broke, details)


def _stood_before(
    record: ResultRecord, labels: Sequence[str], clean: NDArray[np.bool_], stands: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """What stood before each attack: after the one before it, or, without the cascade, at the start of its ensemble."""
    params = record.cell.evaluator.params if record.cell.kind == "eval" else {}
    cascade = bool(params.get("cascade", True))
    listed = {attack["name"] for attack in params.get("attacks", ())}
    # A listed attack may have a slash in its own name, as in `torchattacks/PGD`; then it is no member of an ensemble.
    ensembles = ["" if label.partition("#")[0] in listed else label.rpartition("/")[0] for label in labels]
    before = np.empty_like(stands)
    for row, ensemble in enumerate(ensembles):
        follows = row > 0 and (cascade or (ensemble != "" and ensembles[row - 1] == ensemble))
        before[row] = stands[row - 1] if follows else clean
    return before


def _details(record: ResultRecord, sidecar: bytes, labels: Sequence[str]) -> Columns:
    """The sidecar with its rows in the order of `labels`.

    Raises:
        CorruptRecordError: it is not about this record.
    """
    columns, metadata = read_columns(sidecar)
    stages = text_list(metadata, "stages")
    n = record.cell.data.n
    fits = set(labels) <= set(stages) and "margin" in columns
    for name, values in columns.items():
        fits &= values.shape == ((n,) if name in ("label", "prediction", "rounded") else (len(stages), n))
    if not fits:
        raise CorruptRecordError(f"record {record.cell_key[:12]}: its details are not about its attacks and examples")
    rows = [stages.index(label) for label in labels]
    return {name: values[rows] if values.ndim == 2 else values for name, values in columns.items()}


def _classes(verdicts: _Verdicts) -> ExampleColumns:
    """Labels and clean predictions; without a sidecar neither is known."""
    unknown = np.full(len(verdicts.clean), -1)
    prediction = verdicts.details.get("prediction", unknown)
    label = verdicts.details.get("label", np.where(verdicts.clean, prediction, -1))
    return {"label": _counts(label), "prediction": _counts(prediction)}


def _robust(verdicts: _Verdicts, rows: Sequence[int]) -> list[bool | None]:
    broken = ~verdicts.clean | verdicts.broke[rows].any(axis=0)
    known = broken | verdicts.ran[rows].all(axis=0)
    return [None if not sure else not fell for sure, fell in zip(known.tolist(), broken.tolist(), strict=True)]


def _found(verdicts: _Verdicts, rows: Sequence[int]) -> ExampleColumns:
    """What the attacks in these rows did."""
    n = len(verdicts.clean)
    first = np.full(n, -1)
    for row in reversed(rows):
        first[verdicts.broke[row]] = row
    names = [verdicts.labels[row] if row >= 0 else None for row in first.tolist()]
    found: ExampleColumns = {
        ROBUST: list(_robust(verdicts, rows)),
        "broken_by": [name if right else CLEAN for name, right in zip(names, verdicts.clean.tolist(), strict=True)],
    }
    places = np.where(first >= 0, first, rows[-1] if rows else 0), np.arange(n)
    details = verdicts.details
    for name in ("run", "step"):
        value = details[name][places] if name in details else np.full(n, -1)
        found[name] = _counts(np.where(first >= 0, value, -1))
    margin = details["margin"][places] if details else np.full(n, np.nan)
    norm = details["norm"][places] if "norm" in details else np.full(n, np.nan)
    least = _least_margin(verdicts, rows)
    found["margin"] = _numbers(np.where(first >= 0, margin, least))
    found["norm"] = _numbers(np.where(first >= 0, norm, np.nan))
    for name in ("forward", "backward"):
        found[name] = _passes(verdicts, rows, name)
    return found


def _least_margin(verdicts: _Verdicts, rows: Sequence[int]) -> NDArray[np.floating[Any]]:
    """Smallest margin of each survivor over the attacks; NaN where none says."""
    if not verdicts.details or not rows:
        return np.full(len(verdicts.clean), np.nan)
    margins = verdicts.details["margin"][rows]
    known = np.isfinite(margins)
    least = np.where(known, margins, np.inf).min(axis=0)
    return np.where(known.any(axis=0), least, np.nan)


def _passes(verdicts: _Verdicts, rows: Sequence[int], name: str) -> list[Value]:
    """Passes of all attacks that were run on each example; unknown where one of them does not say."""
    if name not in verdicts.details:
        return [None] * len(verdicts.clean)
    spent, ran = verdicts.details[name][rows], verdicts.ran[rows]
    silent = (ran & (spent < 0)).any(axis=0) | ~ran.any(axis=0)
    return _counts(np.where(silent, -1, np.where(ran, spent, 0).sum(axis=0)))


def _counts(values: NDArray[Any]) -> list[Value]:
    return [value if value >= 0 else None for value in values.astype(int).tolist()]


def _numbers(values: NDArray[Any]) -> list[Value]:
    """Float32 numbers as the shortest decimals that mean them."""
    return [float(str(value)) if math.isfinite(value) else None for value in values.astype(np.float32)]
