"""RobustBench: `model_info/<dataset>/<threat>/<Model>.json` and its per-corruption accuracies (Croce et al., 2021).

Accuracies are percent strings there, radii fractions; an absent number is an empty string, `null` the string, or null.
`external` is a robust accuracy below AutoAttack's that somebody has shown, and it decides the order of their page.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robusteval.leaderboard.boards import Board, Column, TieRule
from robusteval.leaderboard.entries import Claims, Entry, Origin, Value, read_json
from robusteval.leaderboard.importers.report import (
    Imported,
    UnreadableNumberError,
    columns_of,
    digest_of,
    percent,
    plain_number,
    read_bytes,
    relative_name,
)
from robusteval.leaderboard.text import MAX_TEXT, cleaned, is_web_link, stem_of
from robusteval.schema.specs import Reference
from robusteval.schema.types import NonNegativeInt

SYSTEM = "robustbench"
CORRUPTIONS = "corruptions"
_SOURCE = Reference(
    title="RobustBench: a standardized adversarial robustness benchmark",
    authors="Croce, Andriushchenko, Sehwag, Debenedetti, Flammarion, Chiang, Mittal, Hein",
    venue="NeurIPS Datasets and Benchmarks 2021",
    arxiv="2010.09670",
)
_EXAMPLES: Mapping[str, NonNegativeInt] = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 5_000}
"""Test images that the benchmark prescribes."""
_CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
_ROUNDING = 0.0101
"""Percent points by which a mean and the same mean as printed with two digits may differ, either way of rounding."""
_CLEAN = Column(key="a_id", title="Clean accuracy")
_LP_COLUMNS = (
    _CLEAN,
    Column(key="r_id", title="AutoAttack accuracy", note="Robust accuracy under AutoAttack standard."),
    Column(
        key="r_best",
        title="Best known robust accuracy",
        note="The lower one of AutoAttack's and an external attack's accuracy; RobustBench orders by it.",
    ),
    Column(key="r_claimed", title="Claimed robust accuracy", note="What the paper of the model states."),
)
_CORRUPTION_COLUMNS = (
    _CLEAN,
    Column(key="a_ood", title="Accuracy under corruptions", note="Mean over corruptions and severities."),
    Column(
        key="mce",
        title="mCE",
        unit="number",
        higher_is_better=False,
        note="Mean corruption error relative to AlexNet, in percent.",
    ),
    Column(key="a_ood_3d", title="Accuracy under 3D corruptions", note="Mean over 3D corruptions and severities."),
    Column(
        key="mce_3d",
        title="mCE 3D",
        unit="number",
        higher_is_better=False,
        note="Mean corruption error under 3D corruptions relative to AlexNet, in percent.",
    ),
)


@dataclass(frozen=True)
class _Cells:
    """One row of a corruption table."""

    file: str
    model: str
    values: dict[str, str]

    def mean(self) -> float:
        """Mean accuracy in percent."""
        return 100 * sum(float(value) for value in self.values.values()) / len(self.values)


def import_robustbench(path: Path) -> Imported:
    """Read a `model_info` folder, or any part of one; files that cannot be read become problems.

    Args:
        path: folder that holds `<dataset>/<threat>/*.json`, a part of it, or one file.
    """
    found = Imported()
    root = path if path.is_dir() else path.parent
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files:
        found.problems.append(f"{path}: holds no .json file; give RobustBench's model_info folder")
    for folder in sorted({file.parent for file in files}):
        tables = _read_tables(folder, root, found)
        drafts = []
        for file in (file for file in files if file.parent == folder):
            try:
                drafts.append((file, _entry(file, root)))
            except (ValueError, OSError, RecursionError) as error:
                found.problems.append(f"{file}: {cleaned(str(error), 300)}")
        _attach(tables, drafts, found)
        for file, entry in drafts:
            found.add(_board(*_place(file)), _with_cells(entry, file.stem, tables))
            found.count("models")
    return found


def _place(file: Path) -> tuple[str, str]:
    folder = file.resolve().parent
    return folder.parent.name, folder.name


def _board(dataset: str, threat: str) -> Board:
    corruptions = threat == CORRUPTIONS
    chance = dict.fromkeys(("a_id", "a_ood"), 1 / _CLASSES[dataset]) if dataset in _CLASSES else {}
    order = (("mce", "a_ood") if dataset == "imagenet" else ("a_ood", "a_id")) if corruptions else ("r_best", "a_id")
    return Board(
        name=stem_of(f"{dataset}-{threat.lower()}"),
        version=1,
        title=f"{dataset}, {threat}: numbers published by RobustBench",
        summary="Imported, not measured here. The source gives no intervals; those shown follow from the number of "
        "test images that its protocol prescribes.",
        columns=_CORRUPTION_COLUMNS if corruptions else _LP_COLUMNS,
        order=order,
        pairs=(("a_id", "a_ood" if corruptions else "r_best"),),
        ties=TieRule(examples=_EXAMPLES.get(dataset)),
        chance={key: value for key, value in chance.items() if corruptions or key == "a_id"},
        references=(_SOURCE,),
        licence="MIT",
    )


def _entry(file: Path, root: Path) -> Entry:
    blob = read_bytes(file)
    repeated: list[str] = []
    fields = read_json(blob, repeated)
    if not isinstance(fields, dict):
        raise ValueError(f"is {type(fields).__name__}, not a JSON object")
    dataset, threat = _place(file)
    notes = [f"its field {cleaned(key, 40)!r} stands there twice, with the same value" for key in repeated]
    if fields.get("dataset") not in (None, dataset):
        notes.append(f"its dataset field says {cleaned(str(fields['dataset']), 40)!r}, its folder {dataset!r}")
    return Entry(
        id=stem_of(file.stem),
        board=_board(dataset, threat).name,
        badge="reported",
        claims=_claims(file, fields),
        columns=_columns(fields, threat, notes),
        flags=("declared-unreliable",) if fields.get("unreliable") is True else (),
        origin=Origin(
            system=SYSTEM,
            file=cleaned(relative_name(file, root)),
            sha256=digest_of(blob),
            fields=fields,
            notes=tuple(notes),
        ),
    )


def _columns(fields: Mapping[str, Any], threat: str, notes: list[str]) -> dict[str, Value]:
    def read(key: str, reader: Any = percent) -> Value | None:
        try:
            found: Value | None = reader(fields.get(key))
        except UnreadableNumberError as error:
            raise ValueError(f"{key}: {error}") from None
        return found

    clean = read("clean_acc")
    if threat == CORRUPTIONS:
        return columns_of(
            [
                ("a_id", clean),
                ("a_ood", read("corruptions_acc")),
                ("mce", read("corruptions_mce", _number)),
                ("a_ood_3d", read("corruptions_acc_3d")),
                ("mce_3d", read("corruptions_mce_3d", _number)),
            ]
        )
    autoattack, external = read("autoattack_acc"), read("external")
    known = [value for value in (external, autoattack) if value is not None]
    best = min(known, key=lambda value: value.value) if known else None
    if external is not None and autoattack is not None and external.value > autoattack.value:
        notes.append(f"external {external.written} is above autoattack_acc {autoattack.written}")
    return columns_of([("a_id", clean), ("r_id", autoattack), ("r_best", best), ("r_claimed", read("reported"))])


def _number(text: Any) -> Value | None:
    number = plain_number(text)
    return None if number is None else Value(value=float(number), written=str(text).strip())


def _claims(file: Path, fields: Mapping[str, Any]) -> Claims:
    link, passes, extra = fields.get("link"), fields.get("number_forward_passes"), fields.get("additional_data")
    return Claims(
        title=_text(fields.get("name")) or cleaned(file.stem),
        authors=_text(fields.get("authors")),
        venue=_text(fields.get("venue")),
        paper=link if isinstance(link, str) and is_web_link(link) else "",
        architecture=_text(fields.get("architecture")),
        extra_data=extra if isinstance(extra, bool) else None,
        forward_passes_per_prediction=passes if type(passes) is int and passes > 0 else None,
        epsilon=_text(fields.get("eps")),
        footnote=_text(fields.get("footnote"), MAX_TEXT),
    )


def _text(value: Any, limit: int = 400) -> str:
    return "" if value is None else cleaned(str(value), limit)


def _read_tables(folder: Path, root: Path, found: Imported) -> list[_Cells]:
    tables: list[_Cells] = []
    for file in sorted(folder.glob("*.csv")):
        try:
            rows = _read_table(file, root)
        except (ValueError, OSError, csv.Error) as error:
            found.problems.append(f"{file}: {cleaned(str(error), 300)}")
        else:
            tables += rows
            found.count("corruption rows", len(rows))
            found.count("corruption cells", sum(len(row.values) for row in rows))
    return tables


def _read_table(file: Path, root: Path) -> list[_Cells]:
    lines = list(csv.reader(io.StringIO(read_bytes(file).decode("utf-8"))))
    if len(lines) < 2 or len(lines[0]) != len(lines[1]) or len(lines[0]) < 2:
        raise ValueError("needs two header rows, corruption and severity, of equal length")
    names = [f"{corruption}/{severity}" for corruption, severity in zip(lines[0][1:], lines[1][1:], strict=True)]
    if len(set(names)) != len(names):
        raise ValueError("a corruption and severity stands there twice")
    rows = []
    for number, line in enumerate(lines[2:], start=3):
        if len(line) != len(lines[0]):
            raise ValueError(f"row {number} has {len(line)} fields, the header {len(lines[0])}")
        for name, text in zip(names, line[1:], strict=True):
            try:
                value = plain_number(text)
            except UnreadableNumberError as error:
                raise ValueError(f"row {number}, {name}: {error}") from None
            if value is None or not 0 <= value <= 1:
                raise ValueError(f"row {number}, {name}: {text!r} is not an accuracy in [0, 1]")
        rows.append(_Cells(relative_name(file, root), line[0], dict(zip(names, line[1:], strict=True))))
    return rows


def _attach(tables: list[_Cells], drafts: list[tuple[Path, Entry]], found: Imported) -> None:
    """Find the model of every row; a row whose name fits none is matched by its mean if that is unambiguous."""
    stems = {file.stem for file, _ in drafts}
    taken = {(row.file, row.model) for row in tables if row.model in stems}
    for index, row in enumerate(tables):
        if row.model in stems:
            continue
        column = "a_ood_3d" if row.file.endswith("_3d.csv") else "a_ood"
        near = [
            file.stem
            for file, entry in drafts
            if (row.file, file.stem) not in taken
            and column in entry.columns
            and abs(100 * entry.columns[column].value - row.mean()) <= _ROUNDING
        ]
        if len(near) == 1:
            tables[index] = _Cells(row.file, near[0], row.values)
            taken.add((row.file, near[0]))
            found.count("rows matched by their mean")
        else:
            found.problems.append(f"{row.file}: no model is called {cleaned(row.model, 60)!r}")


def _with_cells(entry: Entry, stem: str, tables: list[_Cells]) -> Entry:
    rows = [row for row in tables if row.model == stem]
    if not rows or entry.origin is None:
        return entry
    cells = {name: value for row in rows for name, value in row.values.items()}
    notes = [*entry.origin.notes]
    for row in rows:
        column = "a_ood_3d" if row.file.endswith("_3d.csv") else "a_ood"
        stated = entry.columns.get(column)
        if stated is not None and abs(100 * stated.value - row.mean()) > _ROUNDING:
            notes.append(f"{row.file} has the mean {row.mean():.2f}, the model's file says {stated.written}")
    origin = entry.origin.model_copy(update={"cells": cells, "notes": tuple(notes)})
    return entry.model_copy(update={"origin": origin})
