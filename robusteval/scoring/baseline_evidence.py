"""What lies beside a baseline for fast checks: the adversarial images and margins of its records.

Files `evidence/<sha256>.safetensors` in the folder of the baseline, for records whose suite says `keep: uint8` (or
`float`); without that nothing binary gets into the user's repository.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import StoreError
from robusteval.schema.records import ResultRecord
from robusteval.scoring.baseline_cell import BaselineCell, BaselineError
from robusteval.store.atomic import write_atomically
from robusteval.store.store import Store

EVIDENCE = "evidence"
"""Folder inside that of a baseline."""


def evidence_of(record: ResultRecord) -> tuple[str, ...]:
    """Digests of the files that a record with saved adversarial images refers to: images first, then details."""
    found = record.evaluation
    if found is None or not found.images:
        return ()
    return (*found.images, *(() if found.details is None else (found.details,)))


def write_evidence(folder: Path, cells: Iterable[BaselineCell], store: Store) -> None:
    """Copy what the records of a baseline refer to out of the store they were measured in.

    Args:
        folder: folder of the baseline.
        cells: its files.
        store: where the records come from.

    Raises:
        StoreError: a file is missing there or damaged.
    """
    for digest in {digest: None for cell in cells for digest in evidence_of(cell.record)}:
        path = _path(folder, digest)
        if not path.exists():
            write_atomically(path, store.get_artefact(digest, "file of saved images or details"))


def read_evidence(folder: Path, digest: str, store: Store | None = None) -> bytes | None:
    """One file, from beside the baseline or from a store; None if neither has it.

    Raises:
        BaselineError: it is not what was accepted.
    """
    path = _path(folder, digest)
    if path.exists():
        blob = path.read_bytes()
        if sha256_hex(blob) != digest:
            raise BaselineError(
                f"{path}: changed after it was accepted (or not fetched whole, as by Git LFS); restore it from version "
                f"control, or remove it"
            )
        return blob
    try:
        return None if store is None else store.get_artefact(digest)
    except StoreError:
        return None


def prune_evidence(folder: Path, cells: Iterable[BaselineCell]) -> None:
    """Remove the files that none of the cells refers to."""
    wanted = {_path(folder, digest) for cell in cells for digest in evidence_of(cell.record)}
    for path in (folder / EVIDENCE).glob("*.safetensors"):
        if path not in wanted:
            path.unlink(missing_ok=True)


def _path(folder: Path, digest: str) -> Path:
    return folder / EVIDENCE / f"{digest}.safetensors"
