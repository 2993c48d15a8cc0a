"""One file of a baseline: an accepted record with a few lines for the reader and a digest over all of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import ValidationError

from robusteval.schema.digest import json_digest
from robusteval.schema.errors import DataError, NewerFormatError
from robusteval.schema.records import SCHEMA_VERSION, ResultRecord
from robusteval.schema.types import Digest, Frozen, Name, NonNegativeInt
from robusteval.scoring.outcomes import Groups, outcome_of
from robusteval.scoring.sides import cell_title, doubts
from robusteval.store.envelope import refuse_newer

_DIGEST = "file_digest"


class BaselineError(DataError):
    """A baseline is missing, was changed by hand, or does not hold together."""


class BaselineCell(Frozen):
    """One file of a baseline."""

    schema_version: Literal[1] = 1
    """Version of this format and of the record's."""
    baseline: Name
    """Name of the baseline."""
    suite: str
    """Suite and version that asked, such as `digits@1`."""
    family: str
    """What kind of model it is: the class of the network, or the name of its architecture."""
    cell: str
    """What was measured, for the reader."""
    accuracy: str
    """What was found, for the reader."""
    doubts: tuple[str, ...] = ()
    """Codes of the reasons for doubt."""
    role: str
    """Role of the cell, such as `r_id@0`."""
    seed: NonNegativeInt = 0
    """Seed that distinguishes cells of one role."""
    set: Digest
    """Digest of all results of the baseline that this file belongs to."""
    groups: tuple[NonNegativeInt, ...] | None = None
    """Group of every example, where several show one source image."""
    record: ResultRecord
    """The accepted record."""

    @property
    def stem(self) -> str:
        """Name of the file without its ending."""
        return self.role if self.seed == 0 else f"{self.role}.seed{self.seed}"

    @property
    def value(self) -> float:
        """Share of right outcomes."""
        right = outcome_of(self.record, _outcome(self.role))
        return sum(right) / len(right)

    def encode(self) -> bytes:
        """The content of the file."""
        document = json.loads(self.model_dump_json())
        if document["groups"] is not None:
            document["groups"] = " ".join(map(str, document["groups"]))
        document[_DIGEST] = json_digest(document)
        return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def decode_cell(blob: bytes, place: str) -> BaselineCell:
    """Inverse of `BaselineCell.encode`.

    Raises:
        BaselineError: it was written by a newer version, was changed by hand, or is no baseline.
    """
    again = "restore it from version control, or accept a new baseline"
    try:
        document = json.loads(blob)
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
        refuse_newer(document, place, SCHEMA_VERSION)
        promised, found = document.pop(_DIGEST, None), json_digest(document)
        if isinstance(document.get("groups"), str):
            document["groups"] = [int(part) for part in document["groups"].split()]
        cell = BaselineCell.model_validate_json(json.dumps(document))
        if promised != found:
            raise ValueError("its content was changed after it was accepted")
    except NewerFormatError as error:
        raise BaselineError(str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BaselineError(f"{place}: not a usable baseline ({where}: {first['msg']}); {again}") from None
    except (ValueError, RecursionError) as error:
        raise BaselineError(f"{place}: not a usable baseline ({error}); {again}") from None
    return cell


def make_cells(
    name: str, suite: str, family: str, found: Mapping[str, Mapping[int, ResultRecord]], groups: Groups
) -> tuple[BaselineCell, ...]:
    """Baseline files for records by role and seed.

    Args:
        name: name of the baseline.
        suite: suite and version.
        family: kind of model.
        found: finished eval records.
        groups: see `scoring.outcomes.Groups`.
    """
    cells = [
        BaselineCell(
            baseline=name,
            suite=suite,
            family=family,
            cell=f"{cell_title(role, record)} on {', '.join(record.cell.data.domains)}",
            accuracy=_accuracy(record, role),
            doubts=tuple(sorted(doubts([record]))),
            role=role,
            seed=seed,
            set="0" * 64,
            groups=_codes(groups(record.cell.data.ids_digest)),
            record=record,
        )
        for role, records in found.items()
        for seed, record in records.items()
    ]
    return as_set(cells)


def as_set(cells: Iterable[BaselineCell]) -> tuple[BaselineCell, ...]:
    """The same cells, in the order of their files, marked as belonging together."""
    listed = sorted(cells, key=lambda cell: (cell.role, cell.seed))
    parts = [[cell.baseline, cell.suite, cell.family, cell.stem, cell.record.result_digest] for cell in listed]
    together = json_digest(parts)
    return tuple(cell.model_copy(update={"set": together}) for cell in listed)


def _outcome(role: str) -> str:
    return "robust" if role.startswith("r_") else "clean"


def _accuracy(record: ResultRecord, role: str) -> str:
    right = outcome_of(record, _outcome(role))
    return f"{sum(right)} of {len(right)} ({100 * sum(right) / len(right):.1f} %)"


def _codes(groups: Any) -> tuple[int, ...] | None:
    if groups is None:
        return None
    order = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    return tuple(order[name] for name in groups)
