"""Whether an entry fits beside those that are on the board."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from robusteval.leaderboard.entries import Entry
from robusteval.leaderboard.findings import Finding
from robusteval.schema.errors import unknown_name


def against_others(entry: Entry, others: Mapping[str, Entry]) -> Iterator[Finding]:
    """Whether the entry fits beside those that are there."""
    line = _line(entry, others)
    for other in others.values():
        if other.id.lower() == entry.id.lower():
            yield Finding("id", f"there is an entry {other.id!r}; entries are never changed, give this one another id")
        elif other.supersedes is not None and other.supersedes == entry.supersedes:
            yield Finding("id", f"{entry.supersedes!r} is superseded by {other.id!r} already")
        elif _cells(entry) & _cells(other) and not line & _line(other, others):
            yield Finding("id", f"has the same cells as {other.id!r}; supersede it or leave this one out")
    for word, name in (("supersedes", entry.supersedes), ("reproduces", entry.reproduces)):
        if name is not None and name not in others:
            yield Finding("id", unknown_name(f"entry in {word}", name, others))
    first = others.get(entry.reproduces or "")
    if first is not None:
        yield from _reproduction(entry, first)


def _reproduction(entry: Entry, first: Entry) -> Iterator[Finding]:
    if not first.measured or not _cells(entry) & _cells(first):
        yield Finding("reproduction", f"shares no cell with {first.id!r}, so it reproduces nothing of it")
    for key, value in entry.columns.items():
        old = first.columns.get(key)
        if old is None or None in (value.low, value.high, old.low, old.high):
            continue
        assert value.low is not None and value.high is not None and old.low is not None and old.high is not None
        if value.high < old.low or old.high < value.low:
            yield Finding(
                "reproduction", f"column {key!r}: {value.value:.4f} contradicts {old.value:.4f} of {first.id!r}"
            )


@dataclass(frozen=True)
class Agreement:
    """How far an entry found what another one found in the same cells.

    Attributes:
        cells: cells that both measured.
        identical: how many of them have the same result digest.
        outcomes: outcomes that both have for them.
        differing: how many of those differ.
    """

    cells: int
    identical: int
    outcomes: int
    differing: int


def agreement(entry: Entry, first: Entry) -> Agreement:
    """Compare the results of a reproduction with those of the entry it reproduces."""
    old = {record.cell_key: record for record in first.records}
    pairs = [(record, old[record.cell_key]) for record in entry.records if record.cell_key in old]
    outcomes = differing = 0
    for new, before in pairs:
        if new.evaluation is None or before.evaluation is None:
            continue
        for name in new.evaluation.outcomes.keys() & before.evaluation.outcomes.keys():
            bits = zip(new.evaluation.outcomes[name].unpack(), before.evaluation.outcomes[name].unpack(), strict=True)
            found = [one != other for one, other in bits]
            outcomes, differing = outcomes + len(found), differing + sum(found)
    return Agreement(
        cells=len(pairs),
        identical=sum(new.result_digest == before.result_digest for new, before in pairs),
        outcomes=outcomes,
        differing=differing,
    )


def _line(entry: Entry, others: Mapping[str, Entry]) -> set[str]:
    """Ids of the entry and of what it supersedes or reproduces, directly or through others."""
    found: set[str] = set()
    waiting: list[str | None] = [entry.id]
    while waiting:
        name = waiting.pop()
        if name is not None and name not in found:
            found.add(name)
            here = entry if name == entry.id else others.get(name)
            waiting += [] if here is None else [here.supersedes, here.reproduces]
    return found


def _cells(entry: Entry) -> set[str]:
    return {key for row in entry.rows for key in row.cells.values()}
