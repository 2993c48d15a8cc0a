"""Baselines of regression checks: accepted records in a folder of the user's repository, readable in a diff.

A baseline is a folder `<name>/` with one JSON file a cell: a few lines for the reader, then the full record, then a
digest over all of it. The files of one baseline share a `set` digest, so files of two versions cannot be mixed. `best/`
inside it holds the best record ever accepted of each cell, for `drift`. What a check found but nobody has accepted yet
lies beside the files as `<cell>.obtained.json`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import UsageError
from robusteval.schema.records import ResultRecord
from robusteval.scoring.baseline_cell import BaselineCell, BaselineError, as_set, decode_cell
from robusteval.scoring.baseline_evidence import prune_evidence
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


def write_obtained(folder: Path, cells: Iterable[BaselineCell], *, partial: bool = False) -> list[Path]:
    """Put what a check found beside the baseline, in place of what an earlier check left.

    Args:
        folder: folder of the baseline.
        cells: what was found.
        partial: keep what earlier checks left of other cells.
    """
    listed = list(cells)
    with _lock(folder):
        before = _or_none(load_obtained, folder) if partial else None
        merged = _merged(folder, before, listed) if partial else as_set(listed)
        forget_obtained(folder)
        paths = [folder / f"{cell.stem}{OBTAINED}" for cell in merged]
        for path, cell in zip(paths, merged, strict=True):
            write_atomically(path, cell.encode())
    return [folder / f"{cell.stem}{OBTAINED}" for cell in listed]


def forget_obtained(folder: Path) -> None:
    """Remove what earlier checks left."""
    for path in _files(folder):
        if path.name.endswith(OBTAINED):
            path.unlink(missing_ok=True)


def write_baseline(
    folder: Path, cells: Iterable[BaselineCell], seen: Baseline | None, *, force: bool = False, partial: bool = False
) -> Baseline:
    """Accept cells as the baseline, all of them or none.

    Args:
        folder: folder of the baseline; its name is the name of the baseline.
        cells: the new files.
        seen: the baseline that the decision was based on, None if there was none.
        force: accept a new reason for doubt, and take the place of a damaged baseline.
        partial: keep the other cells of the baseline.

    Raises:
        BaselineConflictError: a cell is no longer the one that was seen.
        UsageError: the cells raise a reason for doubt that the baseline does not, and `force` is off.
        BaselineError: the present baseline is damaged, and `force` is off; or it is of another suite, and `partial`.
    """
    listed = list(cells)
    with _lock(folder):
        current = _or_none(load_baseline, folder) if force else load_baseline(folder)
        _refuse_change(folder, seen, current, listed, partial=partial)
        if current is not None and not force:
            _refuse_doubts(folder, current, listed)
        accepted = _merged(folder, current, listed) if partial else as_set(listed)
        _keep_best(folder, listed)
        names = {f"{cell.stem}.json" for cell in accepted}
        for cell in accepted:
            write_atomically(folder / f"{cell.stem}.json", cell.encode())
        for path in _files(folder):
            if path.name not in names:
                path.unlink(missing_ok=True)
        prune_evidence(folder, accepted)
    return Baseline(folder, accepted)


def _lock(folder: Path) -> FileLock:
    """Held while files of a baseline are written; it lies outside the user's repository."""
    name = f"robusteval-{sha256_hex(str(folder.resolve()).encode())[:20]}.lock"
    return FileLock(Path(tempfile.gettempdir()) / name)


def _merged(folder: Path, current: Baseline | None, cells: list[BaselineCell]) -> tuple[BaselineCell, ...]:
    """The new cells with those of the present baseline that they do not replace."""
    stems = {cell.stem for cell in cells}
    kept = [] if current is None else [cell for cell in current.cells if cell.stem not in stems]
    for cell in kept:
        if (cell.suite, cell.family) != (cells[0].suite, cells[0].family):
            raise BaselineError(
                f"{folder}: holds cells of {cell.family} on {cell.suite}, the new ones are of {cells[0].family} on "
                f"{cells[0].suite}; give them a baseline of their own, or measure all cells together"
            )
    return as_set([*kept, *cells])


def _refuse_change(
    folder: Path, seen: Baseline | None, current: Baseline | None, cells: list[BaselineCell], *, partial: bool
) -> None:
    stems = {cell.stem for cell in cells} if partial else None
    found = {name: _results(baseline, stems) for name, baseline in (("seen", seen), ("current", current))}
    wanted = {cell.stem: cell.record.result_digest for cell in cells}
    if found["current"] not in (found["seen"], wanted):
        raise BaselineConflictError(
            f"{folder}: another session accepted another baseline meanwhile; it was kept whole and this one was not "
            f"written; run the check again to compare with it"
        )


def _results(baseline: Baseline | None, stems: set[str] | None) -> dict[str, str]:
    cells = () if baseline is None else baseline.cells
    return {cell.stem: cell.record.result_digest for cell in cells if stems is None or cell.stem in stems}


def _refuse_doubts(folder: Path, current: Baseline, cells: Iterable[BaselineCell]) -> None:
    known = {code for cell in current.cells for code in cell.doubts}
    fresh = sorted({code for cell in cells for code in cell.doubts} - known)
    if fresh:
        raise UsageError(
            f"{folder}: the new records are flagged {', '.join(fresh)} and the baseline is not; look into it, or "
            f"accept it with: robusteval baseline save {folder.name} --force"
        )


def _or_none(load: Callable[[Path], Baseline | None], folder: Path) -> Baseline | None:
    try:
        return load(folder)
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
    if folder.exists() and not folder.is_dir():
        raise BaselineError(f"{folder}: is a file where a baseline is a folder; move it, or name another baseline")
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
    promised = as_set(cells)
    if any(cell not in promised or cell.baseline != folder.name for cell in cells):
        raise BaselineError(
            f"{folder}: its files do not belong to one baseline called {folder.name!r}; restore all of them from "
            f"version control, or accept a new baseline"
        )
    return promised


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
