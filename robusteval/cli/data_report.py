"""How `robusteval data verify` says what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from robusteval.data.leaks import Twin
    from robusteval.data.verify import FileChanges

SPLITS: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")
Counts = dict[str, dict[Literal["train", "validation", "test"], int]]
"""Examples by domain and split."""
_SHOWN = 20
"""Rows of a listing of findings; all of them are in the JSON."""


def as_json(name: str, counts: Counts, changes: FileChanges | None, twins: list[Twin]) -> dict[str, Any]:
    """Everything that verification found, as JSON."""
    found: dict[str, Any] = {"name": name, "counts": counts, "files": None}
    if changes is not None:
        found["files"] = {
            "n": changes.files,
            "bytes": changes.size,
            "first": changes.first,
            "changed": changes.changed,
            "missing": changes.missing,
            "added": changes.added,
        }
    found["twins"] = [
        {
            "ids": [twin.first, twin.second],
            "places": [list(place) for place in twin.places],
            "same_label": twin.same_label,
            "similarity": round(twin.similarity, 4),
        }
        for twin in twins
    ]
    return found


def show(name: str, counts: Counts, changes: FileChanges | None, twins: list[Twin], *, scanned: bool) -> None:
    """Write counts, files and twins to standard output."""
    from robusteval.cli import render

    rows = [[domain, *(str(numbers[split]) for split in SPLITS)] for domain, numbers in counts.items()]
    render.print_table(["domain", *SPLITS], rows, [_about_files(changes)], title=name)
    if not scanned:
        return
    print()
    pairs = [
        [f"{twin.similarity:.4f}", *_described(twin), "" if twin.same_label else "another class"] for twin in twins
    ]
    notes = [_about_twins(twins)]
    render.print_table(["similarity", "image", "in", "and image", "in", ""], pairs[:_SHOWN], notes)


def _described(twin: Twin) -> list[str]:
    return [twin.first, " ".join(twin.places[0]), twin.second, " ".join(twin.places[1])]


def _about_files(changes: FileChanges | None) -> str:
    if changes is None:
        return "nothing of it is on disk"
    if changes.first:
        return f"{changes.files} files, {changes.size / 1e6:.1f} MB; first verification, their digests are kept now"
    if changes.same:
        return f"{changes.files} files, {changes.size / 1e6:.1f} MB, all as at the first verification"
    return f"{len(changes.changed)} files changed, {len(changes.missing)} missing, {len(changes.added)} new"


def _about_twins(twins: list[Twin]) -> str:
    if not twins:
        return "no picture stands in two splits or domains"
    exact, labels = sum(twin.exact for twin in twins), sum(not twin.same_label for twin in twins)
    more = f" (the first {_SHOWN} are shown, --json has all)" if len(twins) > _SHOWN else ""
    return f"{len(twins)} pairs of alike pictures, {exact} with equal pixels, {labels} with two classes{more}"


def refuse_changes(changes: FileChanges | None) -> None:
    """End with an error if a file is not what it was.

    Raises:
        DataError: files changed, are missing or new.
    """
    from robusteval.schema.errors import DataError

    if changes is None or changes.same:
        return
    kinds = (("changed", changes.changed), ("missing", changes.missing), ("new", changes.added))
    parts = [f"{kind}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" for kind, names in kinds if names]
    raise DataError(
        f"not the files of the first verification ({'; '.join(parts)}); get them again, or take what is there as right "
        f"with --accept"
    )
