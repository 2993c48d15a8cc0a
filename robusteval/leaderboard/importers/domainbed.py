"""DomainBed: a folder of runs, each with a `results.jsonl`, to one reported entry an algorithm and dataset."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robusteval.leaderboard.boards import Board, Column
from robusteval.leaderboard.entries import Claims, Entry, Origin, Value
from robusteval.leaderboard.importers.domainbed_table import AlgorithmRow, Checkpoint, Repeated, training_domain_table
from robusteval.leaderboard.importers.report import (
    Imported,
    digest_of,
    fraction,
    read_bytes,
)
from robusteval.leaderboard.text import cleaned, stem_of
from robusteval.schema.digest import json_digest
from robusteval.schema.specs import Reference

SYSTEM = "domainbed"
_SOURCE = Reference(
    title="In Search of Lost Domain Generalization",
    authors="Gulrajani, Lopez-Paz",
    venue="ICLR 2021",
    arxiv="2007.01434",
)
_ENVIRONMENTS = {
    "PACS": ("art_painting", "cartoon", "photo", "sketch"),
    "VLCS": ("Caltech101", "LabelMe", "SUN09", "VOC2007"),
    "OfficeHome": ("Art", "Clipart", "Product", "Real"),
    "TerraIncognita": ("L100", "L38", "L43", "L46"),
    "DomainNet": ("clip", "info", "paint", "quick", "real", "sketch"),
}
_ACCURACY = re.compile(r"^env[0-9]{1,3}_(in|out)_acc$")


def import_domainbed(path: Path) -> Imported:
    """Read every `results.jsonl` below a folder; lines that cannot be read become problems.

    Args:
        path: output folder of a sweep, one subfolder a run; or one file.
    """
    found = Imported()
    files = sorted(path.rglob("results.jsonl")) if path.is_dir() else [path]
    if not files:
        found.problems.append(f"{path}: holds no results.jsonl")
    lines: list[Checkpoint] = []
    digests: dict[str, str] = {}
    for file in files:
        try:
            blob = read_bytes(file)
            text = blob.decode("utf-8")
        except (ValueError, OSError) as error:
            found.problems.append(f"{file}: {cleaned(str(error), 300)}")
            continue
        found.count("runs")
        digests[file.relative_to(path).as_posix() if path.is_dir() else file.name] = digest_of(blob)
        lines += _read_lines(file, text, found)
    found.count("checkpoints", len(lines))
    for row in training_domain_table(lines):
        if row.average is None:
            found.problems.append(f"{path}: {row.algorithm} on {row.dataset}: no trial has every test domain")
            continue
        envs = sorted({env for other in lines if other.dataset == row.dataset for env in _envs(other)})
        board = _board(row.dataset, envs)
        found.add(board, _entry(board, row, json_digest(digests)))
    return found


def _read_lines(file: Path, text: str, found: Imported) -> list[Checkpoint]:
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            # A diverged run logs its loss as NaN, which is no JSON; its accuracies still count.
            lines.append(_checkpoint(json.loads(line, parse_constant=lambda _: None)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
            found.problems.append(f"{file}:{number}: {cleaned(reason, 200)}")
    return lines


def _checkpoint(record: Mapping[str, Any]) -> Checkpoint:
    args = record["args"]
    accuracy = {}
    for name, value in record.items():
        if _ACCURACY.match(name):
            read = fraction(value)
            if read is None:
                raise ValueError(f"{name} is empty")
            accuracy[name.removesuffix("_acc")] = read.value
    tests = tuple(sorted(int(env) for env in args["test_envs"]))
    trained = [name for name in accuracy if name.endswith("_out") and int(name[3:-4]) not in tests]
    if not trained or any(f"env{env}_in" not in accuracy for env in tests):
        raise ValueError("lacks the validation accuracy of the training domains or the accuracy of the test domain")
    return Checkpoint(
        dataset=str(args["dataset"]),
        algorithm=str(args["algorithm"]),
        test_envs=tests,
        trial=int(args["trial_seed"]),
        hparams=int(args["hparams_seed"]),
        step=int(record["step"]),
        accuracy=accuracy,
    )


def _envs(line: Checkpoint) -> set[int]:
    return {int(name[3:].partition("_")[0]) for name in line.accuracy}


def _board(dataset: str, envs: list[int]) -> Board:
    known = _ENVIRONMENTS.get(dataset, ())
    titles = {env: known[env] if env < len(known) else f"domain {env}" for env in envs}
    columns = [
        Column(key="average", title="Average", note="Mean over test domains, then over trials; interval over trials."),
        *(Column(key=f"env{env}", title=title) for env, title in titles.items()),
        Column(key="validation", title="Validation", note="Held-out part of the training domains; it selects."),
    ]
    return Board(
        name=stem_of(f"domainbed-{dataset.lower()}"),
        version=1,
        title=f"{cleaned(dataset, 60)}: DomainBed runs, training-domain validation",
        summary="Imported from run logs, not measured here. Intervals are Student's t over trials: about five times "
        "what DomainBed prints after +/- for three trials.",
        columns=tuple(columns),
        order=("average",),
        pairs=(("validation", "average"),),
        references=(_SOURCE,),
    )


def _entry(board: Board, row: AlgorithmRow, digest: str) -> Entry:
    assert row.average is not None
    assert row.validation is not None
    columns = {"average": _value(row.average), "validation": _value(row.validation)}
    columns |= {f"env{env}": _value(found) for env, found in row.domains.items()}
    cells = {f"env{env}/trial{trial}": repr(line.accuracy[f"env{env}_in"]) for (env, trial), line in _sorted(row)}
    chosen = [
        {"test_env": env, "trial_seed": trial, "hparams_seed": line.hparams, "step": line.step, "val": line.validation}
        for (env, trial), line in _sorted(row)
    ]
    bars = {"average": row.average, **{f"env{env}": found for env, found in row.domains.items()}}
    errors = {
        name: {"printed_error": bar.printed_error, "standard_error": bar.standard_error} for name, bar in bars.items()
    }
    notes = [f"trial {trial} lacks a test domain and is not in the average" for trial in row.incomplete]
    return Entry(
        id=stem_of(row.algorithm),
        board=board.name,
        badge="reported",
        claims=Claims(title=cleaned(row.algorithm) or "unnamed"),
        columns=columns,
        origin=Origin(
            system=SYSTEM,
            file="results.jsonl",
            sha256=digest,
            fields={"dataset": row.dataset, "algorithm": row.algorithm, "selected": chosen, "errors": errors},
            cells=cells,
            notes=tuple(notes),
        ),
    )


def _sorted(row: AlgorithmRow) -> list[tuple[tuple[int, int], Checkpoint]]:
    return sorted(row.selected.items(), key=lambda item: item[0])


def _value(found: Repeated) -> Value:
    low, high = found.interval or (None, None)
    written = f"{100 * found.mean:.1f} +/- {100 * found.printed_error:.1f}"
    if low is None or high is None:
        return Value(value=found.mean, n=len(found.values), written=written)
    low, high = min(low, found.mean), max(high, found.mean)
    return Value(value=found.mean, low=low, high=high, n=len(found.values), interval="student-t", written=written)
