"""Baselines of regression checks: accepted records in a folder of the user's repository, readable in a diff.

A baseline is a folder `<name>/` with one JSON file a cell: a few lines for the reader, then the full record, then a
digest over all of it. The files of one baseline share a `set` digest, so files of two versions cannot be mixed. `best/`
inside it holds the best record ever accepted of each cell, for `drift`. What a check found but nobody has accepted yet
lies beside the files as `<cell>.obtained.json`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import UsageError
from robusteval.schema.records import ResultRecord
from robusteval.scoring.baseline_cell import BaselineCell, BaselineError, decode_cell, make_cells
from robusteval.scoring.sides import Side
from robusteval.store.atomic import write_atomically

OBTAINED = ".obtained.json"
"""Ending of files that hold what a check found and nobody has accepted yet."""
_BEST = "best"


class BaselineConflictError(UsageError):
    """Somebody else accepted another baseline meanwhile."""


@dataclass(frozen=True)
class Baseline:
    """A whole baseline.

    Attributes:
        folder: where its files are.
        cells: its files, by role and seed.
    """

    folder: Path
    cells: tuple[BaselineCell, ...]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def set(self) -> str:
        """Digest of all results."""
        return self.cells[0].set

    @property
    def family(self) -> str:
        """Kind of model."""
        return self.cells[0].family

    @property
    def suite(self) -> str:
        """Suite and version."""
        return self.cells[0].suite

    def side(self, label: str = "") -> Side:
        """The baseline as one side of a comparison."""
        return _side(label or f"baseline {self.name}", self.cells)


def load_baseline(folder: Path) -> Baseline | None:
    """Read a baseline; None if there is none.

    Raises:
        BaselineError: a file is damaged, or the files do not belong together.
    """
    cells = _read(path for path in _files(folder) if not path.name.endswith(OBTAINED))
    return Baseline(folder, _together(folder, cells)) if cells else None


def load_obtained(folder: Path) -> Baseline | None:
    """Read what a check found and nobody has accepted yet; None if there is nothing.

    Raises:
        BaselineError: a file is damaged, or the files do not belong together.
    """
    cells = _read(path for path in _files(folder) if path.name.endswith(OBTAINED))
    return Baseline(folder, _together(folder, cells)) if cells else None


def load_best(folder: Path) -> Baseline | None:
    """Read the best record ever accepted of each cell; they need not come from one baseline.

    Raises:
        BaselineError: a file is damaged.
    """
    cells = _read(_files(folder / _BEST))
    return Baseline(folder, tuple(cells)) if cells else None


def write_obtained(folder: Path, cells: Iterable[BaselineCell]) -> list[Path]:
    """Put what a check found beside the baseline, in place of what an earlier check left."""
    listed = list(cells)
    forget_obtained(folder)
    paths = [folder / f"{cell.stem}{OBTAINED}" for cell in listed]
    for path, cell in zip(paths, listed, strict=True):
        write_atomically(path, cell.encode())
    return paths


def forget_obtained(folder: Path) -> None:
    """Remove what earlier checks left."""
    for path in _files(folder):
        if path.name.endswith(OBTAINED):
            path.unlink(missing_ok=True)


def write_baseline(
    folder: Path, cells: tuple[BaselineCell, ...], seen: Baseline | None, *, force: bool = False
) -> Baseline:
    """Accept cells as the baseline, all of them or none.

    Args:
        folder: folder of the baseline; its name is the name of the baseline.
        cells: the new files, one set.
        seen: the baseline that the decision was based on, None if there was none.
        force: accept a new reason for doubt.

    Raises:
        BaselineConflictError: the baseline is no longer the one that was seen.
        UsageError: the cells raise a reason for doubt that the baseline does not, and `force` is off.
    """
    lock = Path(tempfile.gettempdir()) / f"robusteval-{sha256_hex(str(folder.resolve()).encode())[:20]}.lock"
    with FileLock(lock):
        current = load_baseline(folder) if seen is not None or not force else _or_none(folder)
        _refuse_change(folder, seen, current, cells)
        if current is not None and not force:
            _refuse_doubts(folder, current, cells)
        _keep_best(folder, cells)
        names = {f"{cell.stem}.json" for cell in cells}
        for cell in cells:
            write_atomically(folder / f"{cell.stem}.json", cell.encode())
        for path in _files(folder):
            if path.name not in names:
                path.unlink(missing_ok=True)
    return Baseline(folder, cells)


def _refuse_change(
    folder: Path, seen: Baseline | None, current: Baseline | None, cells: Iterable[BaselineCell]
) -> None:
    before = None if seen is None else seen.set
    now = None if current is None else current.set
    if now != before and now != next(iter(cells)).set:
        raise BaselineConflictError(
            f"{folder}: another session accepted another baseline meanwhile; it was kept whole and this one was not "
            f"written; run the check again to compare with it"
        )


def _refuse_doubts(folder: Path, current: Baseline, cells: Iterable[BaselineCell]) -> None:
    known = {code for cell in current.cells for code in cell.doubts}
    fresh = sorted({code for cell in cells for code in cell.doubts} - known)
    if fresh:
        raise UsageError(
            f"{folder}: the new records are flagged {', '.join(fresh)} and the baseline is not; look into it, or "
            f"accept it with: robusteval baseline save {folder.name} --force"
        )


def _or_none(folder: Path) -> Baseline | None:
    try:
        return load_baseline(folder)
    except BaselineError:
        return None


def _keep_best(folder: Path, cells: Iterable[BaselineCell]) -> None:
    """Replace the best record of a cell if the new one is better, or answers another question."""
    for cell in cells:
        path = folder / _BEST / f"{cell.stem}.json"
        try:
            best = decode_cell(path.read_bytes(), str(path)) if path.exists() else None
        except BaselineError:
            best = None
        same = best is not None and best.record.cell.data.ids_digest == cell.record.cell.data.ids_digest
        if best is None or not same or cell.value > best.value:
            write_atomically(path, cell.encode())


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))


def _read(paths: Iterable[Path]) -> list[BaselineCell]:
    found = []
    for path in paths:
        try:
            found.append(decode_cell(path.read_bytes(), str(path)))
        except OSError as error:
            raise BaselineError(f"{path}: cannot be read ({error.strerror or error})") from None
    return found


def _together(folder: Path, cells: list[BaselineCell]) -> tuple[BaselineCell, ...]:
    first = cells[0]
    promised = make_cells(first.baseline, first.suite, first.family, _by_role(cells), lambda _: None)[0].set
    if any(cell.set != promised or cell.baseline != folder.name for cell in cells):
        raise BaselineError(
            f"{folder}: its files do not belong to one baseline called {folder.name!r}; restore all of them from "
            f"version control, or accept a new baseline"
        )
    return tuple(cells)


def _by_role(cells: Iterable[BaselineCell]) -> dict[str, dict[int, ResultRecord]]:
    found: dict[str, dict[int, ResultRecord]] = {}
    for cell in cells:
        found.setdefault(cell.role, {})[cell.seed] = cell.record
    return found


def _side(label: str, cells: Iterable[BaselineCell]) -> Side:
    listed = list(cells)
    groups: dict[str, list[str] | None] = {
        cell.record.cell.data.ids_digest: None if cell.groups is None else [str(code) for code in cell.groups]
        for cell in listed
    }
    return Side(label, {"": _by_role(listed)}, groups.get)
