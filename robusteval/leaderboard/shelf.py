"""The entries of a board on disk: `entries/<id>.json`, each written once, and `ids/<digest>.json` for the examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from robusteval.leaderboard.entries import MAX_BYTES, BrokenEntryError, Entry, decode_entry, encode_entry
from robusteval.schema.digest import ids_digest
from robusteval.schema.errors import DataError
from robusteval.store.atomic import create_atomically
from robusteval.store.envelope import decode_ids, encode_ids


@dataclass(frozen=True)
class Contents:
    """What lies on a shelf.

    Attributes:
        entries: every readable entry by id, in alphabetical order.
        problems: one line for each file that cannot be read or contradicts another one.
    """

    entries: dict[str, Entry]
    problems: tuple[str, ...] = ()
    _replaced: dict[str, str] = field(default_factory=dict, repr=False)

    def active(self) -> list[Entry]:
        """Entries that no other entry supersedes."""
        return [entry for entry in self.entries.values() if entry.id not in self._replaced]

    def replaced_by(self, entry_id: str) -> str | None:
        """Id of the entry that supersedes this one."""
        return self._replaced.get(entry_id)


class Shelf:
    """The entries of one board.

    Args:
        folder: folder of the board.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, entry_id: str) -> Path:
        """Where the entry of that id is; ids are names, so they cannot leave the folder."""
        return self.folder / "entries" / f"{entry_id}.json"

    def read(self) -> Contents:
        """Read everything; what cannot be read gets a line, and the others still come."""
        entries: dict[str, Entry] = {}
        problems: list[str] = []
        for path in sorted((self.folder / "entries").glob("*.json")):
            try:
                entry = self.read_file(path)
                if entry.id != path.stem:
                    raise BrokenEntryError(f"{path}: id is {entry.id!r}; the file must be called {entry.id}.json")
            except DataError as error:
                problems.append(str(error))
            else:
                entries[entry.id] = entry
        lowered: dict[str, str] = {}
        for entry_id in entries:
            first = lowered.setdefault(entry_id.lower(), entry_id)
            if first != entry_id:
                problems.append(f"{self.path(entry_id)}: differs from {first}.json by case only; use another id")
        replaced = _replaced(entries, problems, self)
        return Contents(entries, tuple(problems), replaced)

    @staticmethod
    def read_file(path: Path) -> Entry:
        """Read one entry file.

        Raises:
            BrokenEntryError: it is missing, cannot be read, or is no entry.
        """
        try:
            if path.stat().st_size > MAX_BYTES:
                raise BrokenEntryError(f"{path}: {path.stat().st_size:,} bytes; an entry has at most {MAX_BYTES:,}")
            blob = path.read_bytes()
        except OSError as error:
            raise BrokenEntryError(f"{path}: cannot be read ({error.strerror or error})") from None
        return decode_entry(blob, str(path))

    def add(self, entry: Entry) -> Literal["added", "unchanged"]:
        """Write an entry; one that is there is never overwritten.

        Raises:
            DataError: another entry has this id, or an id that differs by case only.
        """
        lowered = entry.id.lower()
        for other in (self.folder / "entries").glob("*.json"):
            if other.stem.lower() == lowered and other.stem != entry.id:
                raise DataError(f"{other}: differs from {entry.id!r} by case only; give the entry another id")
        path = self.path(entry.id)
        blob = encode_entry(entry)
        if create_atomically(path, blob):
            return "added"
        if path.read_bytes() == blob:
            return "unchanged"
        raise DataError(
            f"{path}: there is another entry of this id, and entries are never changed; "
            f"give the new one its own id and supersedes: {entry.id}"
        )

    def add_ids(self, ids: Sequence[str], groups: Sequence[str]) -> None:
        """Keep the ordered example ids of a slice and what each was made from."""
        create_atomically(self._ids_path(ids_digest(ids)), encode_ids(tuple(ids), tuple(groups)))

    def groups(self, digest: str) -> list[str] | None:
        """Groups of the examples of a slice; None if each stands alone or the board does not keep its ids.

        Raises:
            CorruptRecordError: the file was changed.
        """
        path = self._ids_path(digest)
        return decode_ids(path.read_bytes(), digest, str(path))[1] if path.is_file() else None

    def _ids_path(self, digest: str) -> Path:
        return self.folder / "ids" / f"{digest}.json"


def _replaced(entries: dict[str, Entry], problems: list[str], shelf: Shelf) -> dict[str, str]:
    """Which entry supersedes which; a dangling, doubled or circular reference is a problem."""
    replaced: dict[str, str] = {}
    for entry in entries.values():
        old = entry.supersedes
        if old is None:
            continue
        if old not in entries:
            problems.append(f"{shelf.path(entry.id)}: supersedes {old!r}, which is not on the board")
        elif old in replaced:
            problems.append(f"{shelf.path(entry.id)}: supersedes {old!r}, which {replaced[old]!r} supersedes already")
        else:
            replaced[old] = entry.id
    for start in entries:
        seen, here = {start}, replaced.get(start)
        while here is not None and here not in seen:
            seen.add(here)
            here = replaced.get(here)
        if here == start:
            problems.append(f"{shelf.path(start)}: supersedes itself through {replaced[start]!r}")
    return replaced
