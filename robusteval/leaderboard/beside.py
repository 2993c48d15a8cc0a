"""Whether an entry fits beside those that are on the board."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from robusteval.leaderboard.entries import Entry
from robusteval.leaderboard.findings import Finding
from robusteval.schema.errors import unknown_name


def against_others(entry: Entry, others: Mapping[str, Entry]) -> Iterator[Finding]:
    """Whether the entry fits beside those that are there."""
    for other in others.values():
        if other.id.lower() == entry.id.lower():
            yield Finding("id", f"there is an entry {other.id!r}; entries are never changed, give this one another id")
        elif other.supersedes is not None and other.supersedes == entry.supersedes:
            yield Finding("id", f"{entry.supersedes!r} is superseded by {other.id!r} already")
        elif _cells(entry) & _cells(other) and other.id not in (entry.supersedes, entry.reproduces):
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


def _cells(entry: Entry) -> set[str]:
    return {key for row in entry.rows for key in row.cells.values()}
