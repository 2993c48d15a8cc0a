"""What an entry is: one model on one board, with its claims, its numbers, and the records or the source behind them.

An entry is written once. Its digest covers everything in it; a correction is a new entry that supersedes the old one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import ValidationError, model_validator

from robusteval.leaderboard.boards import SuiteRef
from robusteval.leaderboard.text import Line, Link, Text, cleaned
from robusteval.schema.digest import json_digest
from robusteval.schema.errors import DataError
from robusteval.schema.plans import RowSeed
from robusteval.schema.problems import dotted, reword
from robusteval.schema.records import ResultRecord
from robusteval.schema.types import Digest, Frozen, JsonValue, Name, NonNegativeInt, PositiveInt

SCHEMA_VERSION = 1
"""Version of the entry format; readers refuse a newer one by name."""
MAX_BYTES = 64_000_000
"""Largest entry file that is read."""
DIGEST = "entry_digest"
"""Name of the digest: SHA-256 of the canonical JSON of the entry."""
Badge = Literal["measured", "reproduced", "reported"]
"""Measured here, measured again by somebody else with the same result, or imported and not run again."""


class BrokenEntryError(DataError):
    """An entry file is not an entry."""


class Claims(Frozen):
    """What the submitter says about the model; nobody has checked it."""

    title: Line
    """Title of the work, or name of the model."""
    authors: Line = ""
    """Authors, comma separated."""
    venue: Line = ""
    """Where and when it appeared."""
    paper: Link = ""
    """Address of the paper."""
    code: Link = ""
    """Address of the code."""
    licence: Line = ""
    """Licence of the weights."""
    architecture: Line = ""
    """Network."""
    extra_data: bool | None = None
    """Whether more data than the benchmark's training set was used; absent if nobody says."""
    forward_passes_per_prediction: PositiveInt | None = None
    """Passes through the network for one prediction."""
    epsilon: Line = ""
    """Radius the numbers are claimed for, as written."""
    contact: Line = ""
    """Whom to ask."""
    footnote: Text = ""
    """Remarks."""


class Value(Frozen):
    """A number in one column."""

    value: float
    """Fraction in [0, 1] for an accuracy."""
    low: float | None = None
    """Lower end of the 95 % interval; absent if the source gives none and the examples are not known."""
    high: float | None = None
    """Upper end of the 95 % interval."""
    n: NonNegativeInt | None = None
    """Examples, or repetitions, that it rests on."""
    interval: Line = ""
    """How the interval was computed."""
    written: Line = ""
    """How a reported number was written."""

    @model_validator(mode="after")
    def _interval_holds_value(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high come together")
        if self.low is not None and self.high is not None and not self.low <= self.value <= self.high:
            raise ValueError(f"value {self.value} is not in its interval [{self.low}, {self.high}]")
        return self


class Origin(Frozen):
    """Where a reported number was published, with everything that stood there."""

    system: Name
    """Importer that read it."""
    file: Line
    """File it came from, relative to what was imported."""
    sha256: Digest
    """Digest of the file."""
    fields: dict[str, JsonValue]
    """Every field of the source, unchanged."""
    cells: dict[str, str] = {}
    """Finer numbers, as written: `fog/3` for a corruption and severity, a domain, a trial."""
    notes: tuple[Line, ...] = ()
    """What the importer noticed and did not repair."""


class Entry(Frozen):
    """One model on one board."""

    schema_version: Literal[1] = 1
    """Version of this format."""
    id: Name
    """Name of the entry and of its file; never used again."""
    board: Name
    """Board it belongs to."""
    badge: Badge
    """Who measured it."""
    supersedes: Name | None = None
    """Id of the entry that this one corrects."""
    reproduces: Name | None = None
    """Id of the entry whose cells were measured again; present exactly for `reproduced`."""
    claims: Claims
    """What the submitter says."""
    suite: SuiteRef | None = None
    """Suite that the records come from."""
    columns: dict[Name, Value]
    """Column of the board to number."""
    flags: tuple[Name, ...] = ()
    """Codes of every reason for doubt that the records raise, disclosed."""
    rows: tuple[RowSeed, ...] = ()
    """Training seeds and which record plays which role."""
    records: tuple[ResultRecord, ...] = ()
    """Records with per-example outcomes; for a measured or reproduced entry."""
    origin: Origin | None = None
    """Where it was published; for a reported entry."""

    @model_validator(mode="after")
    def _badge_fits(self) -> Self:
        if self.badge == "reported":
            if self.records or self.rows:
                raise ValueError("a reported entry has no records; its badge must be measured")
            if self.origin is None:
                raise ValueError("a reported entry says where it was published; origin is missing")
        elif not self.records or not self.rows or self.origin is not None:
            raise ValueError(f"a {self.badge} entry has rows and records and no origin")
        if (self.badge == "reproduced") != (self.reproduces is not None):
            raise ValueError("reproduces is there exactly if the badge is reproduced")
        if self.supersedes == self.id or self.reproduces == self.id:
            raise ValueError(f"entry {self.id!r} refers to itself")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the entry as its file holds it."""
        return json_digest(self.document())

    def document(self) -> dict[str, Any]:
        """The entry as plain JSON values: fields at their defaults are left out, records are written in full."""
        found: dict[str, Any] = json.loads(self.model_dump_json(exclude={"records"}, exclude_defaults=True))
        if self.records:
            # In full, because a union inside a record is told apart by a field that always has its default.
            found["records"] = [json.loads(record.model_dump_json()) for record in self.records]
        return found

    @property
    def measured(self) -> bool:
        """Whether per-example outcomes stand behind it."""
        return self.badge != "reported"


def encode_entry(entry: Entry) -> bytes:
    """An entry as the bytes of its file; equal entries give equal bytes."""
    content = entry.document()
    document = {"entry": content, DIGEST: json_digest(content)}
    return json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False, sort_keys=True).encode() + b"\n"


def decode_entry(blob: bytes, place: str) -> Entry:
    """Inverse of `encode_entry`.

    Args:
        blob: content of the file.
        place: where it is, for messages.

    Raises:
        BrokenEntryError: it is no entry, or not what its digest promises; the message names the field.
    """
    if len(blob) > MAX_BYTES:
        raise BrokenEntryError(f"{place}: {len(blob):,} bytes; an entry has at most {MAX_BYTES:,}")
    try:
        document = read_json(blob)
        if not isinstance(document, dict) or set(document) != {"entry", DIGEST}:
            raise ValueError(f"an entry file holds exactly 'entry' and {DIGEST!r}")
        content = document["entry"]
        version = content.get("schema_version", 1)
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise BrokenEntryError(
                f"{place}: written by a newer robusteval (schema {version}, this one reads {SCHEMA_VERSION}); upgrade"
            )
        entry = Entry.model_validate_json(json.dumps(content))
        found = json_digest(content)
    except ValidationError as error:
        raise BrokenEntryError(f"{place}: {_first(error)}") from None
    except (ValueError, AttributeError, RecursionError) as error:
        raise BrokenEntryError(f"{place}: not an entry ({cleaned(str(error), 120)})") from None
    if found != document[DIGEST]:
        raise BrokenEntryError(f"{place}: {DIGEST} is not the digest of the entry, {found[:12]}; it was changed")
    return entry


def read_json(blob: bytes, repeated: list[str] | None = None) -> Any:
    """Parse JSON strictly: UTF-8, no NaN and no infinity, no repeated key.

    Args:
        blob: UTF-8 text.
        repeated: takes keys that stand there again with the same value; without it these are errors too.

    Raises:
        ValueError: it is not that.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                if repeated is None or found[key] != value:
                    raise ValueError(f"key {key[:60]!r} stands there twice")
                repeated.append(key)
            found[key] = value
        return found

    return json.loads(blob.decode("utf-8"), object_pairs_hook=once, parse_constant=_refuse_constant)


def _refuse_constant(text: str) -> Callable[[], None]:
    raise ValueError(f"{text} is not a JSON number")


def _first(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_input=False)
    first = details[0]
    where = dotted(tuple(first["loc"]))
    rest = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return cleaned(f"{where}: {reword(first['msg'])}" if where else reword(first["msg"]), 300) + rest
