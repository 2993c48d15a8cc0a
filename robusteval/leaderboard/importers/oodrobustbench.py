"""OODRobustBench: one CSV row a model, in percent (Li et al., ICML 2024, arXiv 2310.12793)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from robusteval.leaderboard.boards import Board, Column, TieRule
from robusteval.leaderboard.entries import Claims, Entry, Origin
from robusteval.leaderboard.importers.report import (
    Imported,
    UnreadableNumberError,
    columns_of,
    digest_of,
    percent,
    read_bytes,
    relative_name,
)
from robusteval.leaderboard.text import cleaned, is_web_link, stem_of
from robusteval.schema.specs import Reference

SYSTEM = "oodrobustbench"
_SOURCE = Reference(
    title="OODRobustBench: a Benchmark and Large-Scale Analysis of Adversarial Robustness under Distribution Shift",
    authors="Li, Wang, Sitawarin, Spratling",
    venue="ICML 2024",
    arxiv="2310.12793",
)
_COLUMNS = (
    ("id_clean", Column(key="a_id", title="Clean accuracy, ID")),
    ("id_robust", Column(key="r_id", title="Robust accuracy, ID", note="Under the MM5 attack.")),
    ("ood_dataset_clean", Column(key="a_ood", title="Clean accuracy, dataset shifts", note="Mean over the shifts.")),
    ("ood_dataset_robust", Column(key="r_ood", title="Robust accuracy, dataset shifts", note="Mean over the shifts.")),
    (
        "ood_threat_robust",
        Column(key="r_unseen", title="Robust accuracy, unseen threats", note="Mean over six threats."),
    ),
    (
        "ood_robust",
        Column(key="r_ood_mean", title="OOD robustness", note="Mean of the two before it; their page orders by it."),
    ),
)
_FIELDS = ("dataset", "threat", "title", "link", *(name for name, _ in _COLUMNS), "extra_data", "architecture", "venue")
_TRUTH = {"true": True, "false": False}
_CHANCE = {"cifar10": 0.1, "cifar100": 0.01, "imagenet": 0.001}


def import_oodrobustbench(path: Path) -> Imported:
    """Read a CSV file of their pages, or every one in a folder; rows that cannot be read become problems.

    Args:
        path: file with the columns `dataset, threat, title, link, id_clean, ...`, or a folder of such files.
    """
    found = Imported()
    files = sorted(path.rglob("*.csv")) if path.is_dir() else [path]
    if not files:
        found.problems.append(f"{path}: holds no .csv file")
    for file in files:
        try:
            _read(file, path if path.is_dir() else file, found)
        except (ValueError, OSError, csv.Error) as error:
            found.problems.append(f"{file}: {cleaned(str(error), 300)}")
    return found


def _read(file: Path, root: Path, found: Imported) -> None:
    blob = read_bytes(file)
    reader = csv.DictReader(io.StringIO(blob.decode("utf-8-sig")), strict=True)
    missing = [name for name in _FIELDS if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"has no column {missing[0]!r}; needs {', '.join(_FIELDS)}")
    seen: dict[str, int] = {}
    origin = (cleaned(relative_name(file, root)), digest_of(blob))
    for number, row in enumerate(reader, start=2):
        try:
            if None in row or None in row.values():
                raise ValueError("another number of fields than the header")
            board = _board(row["dataset"], row["threat"])
            base = f"{_title_stem(row)}_{stem_of(row['architecture'])[:30]}"
            seen[board.name + base] = again = seen.get(board.name + base, 0) + 1
            entry_id = stem_of(base if again == 1 else f"{base}.{again}")
            found.add(board, _entry(entry_id, board, row, origin, number))
            found.count("rows")
        except ValueError as error:
            found.problems.append(f"{file}:{number}: {cleaned(str(error), 300)}")


def _title_stem(row: Mapping[str, str]) -> str:
    """The beginning of an id: the arXiv number where the link has one, else the first words of the title."""
    tail = row["link"].rsplit("/", 1)[-1].removesuffix(".pdf")
    return stem_of(tail) if "arxiv.org/" in row["link"] else stem_of(cleaned(row["title"]))[:40]


def _board(dataset: str, threat: str) -> Board:
    chance = _CHANCE.get(dataset)
    return Board(
        name=stem_of(f"oodrobustbench-{dataset}-{threat.lower()}"),
        version=1,
        title=f"{cleaned(dataset, 40)}, {cleaned(threat, 40)}: numbers published by OODRobustBench",
        summary="Imported, not measured here. The source gives neither intervals nor numbers of examples.",
        columns=tuple(column for _, column in _COLUMNS),
        order=("r_ood_mean", "r_id"),
        pairs=(("a_id", "r_id"), ("r_id", "r_ood"), ("r_id", "r_unseen"), ("a_id", "a_ood")),
        ties=TieRule(),
        chance={} if chance is None else {"a_id": chance, "a_ood": chance},
        references=(_SOURCE,),
    )


def _entry(entry_id: str, board: Board, row: Mapping[str, str], origin: tuple[str, str], number: int) -> Entry:
    values = []
    for name, column in _COLUMNS:
        try:
            values.append((column.key, percent(row[name])))
        except UnreadableNumberError as error:
            raise ValueError(f"{name}: {error}") from None
    return Entry(
        id=entry_id,
        board=board.name,
        badge="reported",
        claims=Claims(
            title=cleaned(row["title"]) or entry_id,
            venue=cleaned(row["venue"]),
            paper=row["link"] if is_web_link(row["link"]) else "",
            architecture=cleaned(row["architecture"]),
            extra_data=_TRUTH.get(row["extra_data"].strip().lower()),
        ),
        columns=columns_of(values),
        origin=Origin(
            system=SYSTEM, file=origin[0], sha256=origin[1], fields=dict(row), notes=(f"line {number} of the file",)
        ),
    )
