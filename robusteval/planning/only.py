"""The filter grammar of `--only`: `method=rift,evaluator=adv*,seed=0`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from robusteval.schema.errors import UsageError, unknown_name

FIELDS = ("label", "method", "evaluator", "seed", "role", "fold")


def valid_values(cells: Iterable[_Filterable]) -> str:
    """What each field can be in these cells, in the words of a message."""
    listed = list(cells)
    values = {field: list(dict.fromkeys(str(getattr(cell, field)) for cell in listed)) for field in FIELDS}
    return "; ".join(f"{field} {', '.join(found)}" for field, found in values.items())


class _Filterable(Protocol):
    @property
    def label(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def evaluator(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def role(self) -> str: ...
    @property
    def fold(self) -> str: ...


@dataclass(frozen=True)
class Filter:
    """Which cells are meant.

    Attributes:
        terms: field and shell patterns; a cell must match every field, by any of the field's patterns.
    """

    terms: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Read `field=pattern,field=pattern`; a field that is given twice matches either pattern.

        Raises:
            UsageError: a term is not `field=pattern`, or the field does not exist.
        """
        terms: dict[str, list[str]] = {}
        for term in text.split(","):
            name, equals, pattern = (part.strip() for part in term.partition("="))
            if not equals or not pattern:
                raise UsageError(
                    f"--only {text!r}: {term.strip()!r} is not FIELD=PATTERN, such as method=rift,seed=0; fields: "
                    f"{', '.join(FIELDS)}"
                )
            if name not in FIELDS:
                raise UsageError(
                    f"--only {text!r}: " + unknown_name("field", name, FIELDS) + f"; fields: {', '.join(FIELDS)}"
                )
            terms.setdefault(name, []).append(pattern)
        return cls(tuple((name, tuple(patterns)) for name, patterns in terms.items()))

    def matches(self, cell: _Filterable) -> bool:
        """Whether a cell is meant; `role=r_id` stands for every threat, `role=r_id@0` for the first."""
        return all(any(self._fits(cell, name, pattern) for pattern in patterns) for name, patterns in self.terms)

    @staticmethod
    def _fits(cell: _Filterable, name: str, pattern: str) -> bool:
        values = [str(getattr(cell, name))]
        if name == "role":
            values.append(values[0].partition("@")[0])
        return any(fnmatchcase(value, pattern) for value in values)
