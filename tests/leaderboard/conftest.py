"""A small board with measured entries, made through the real schema classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from robusteval.leaderboard.assemble import assemble_entry
from robusteval.leaderboard.boards import Board, Column, Minimum, SuiteRef, board_yaml
from robusteval.leaderboard.entries import Claims, Entry, Origin, Value
from robusteval.leaderboard.shelf import Shelf
from robusteval.schema.cells import CellStart, DataSlice, EvalCell
from robusteval.schema.digest import ids_digest, sha256_hex
from robusteval.schema.plans import RowSeed
from robusteval.schema.records import (
    Bits,
    Budget,
    Evaluation,
    Flag,
    Metric,
    Provenance,
    ResultRecord,
    Timing,
    result_digest,
)
from robusteval.schema.types import Component, Epsilon, ThreatModel

N = 60
THREAT = ThreatModel(epsilon=Epsilon("8/255"))
PROVENANCE = Provenance(
    robusteval_version="0", git_dirty=False, packages={}, python="3.11", platform="t", device="cpu", threads=1
)
TIMING = Timing(started_at="2026-01-02T03:04:05Z", wall_s=1.0)
FLAG = Flag(code="black-box-beats-white-box", severity="warning", evidence="seen", next_step="look")
MakeEntry = Callable[..., Entry]


def ids_of(side: str) -> tuple[str, ...]:
    return tuple(f"{side}/{index}" for index in range(N))


def slice_of(side: str) -> DataSlice:
    return DataSlice(
        dataset=Component(name="synthetic"),
        revision="1",
        domains=(side,),
        split="test",
        n=N,
        ids_digest=ids_digest(ids_of(side)),
    )


def record_of(
    train_key: str,
    side: str,
    outcomes: dict[str, Sequence[bool]],
    threat: ThreatModel | None = None,
    flags: tuple[Flag, ...] = (),
) -> ResultRecord:
    cell = EvalCell(
        model=CellStart(cell=train_key),
        data=slice_of(side),
        evaluator=Component(name="adversarial" if threat else "clean"),
        protocol=1,
        threat=threat,
        seed=0,
    )
    shown = "robust" if threat else "clean"
    value = float(np.mean(outcomes[shown]))
    evaluation = Evaluation(
        metrics=(Metric(name="robust_accuracy" if threat else "accuracy", value=value, n=N),),
        outcomes={name: Bits.pack([bool(bit) for bit in bits]) for name, bits in outcomes.items()},
        domains=((side, N),),
        flags=flags,
        budget=Budget(forward=100 * N, backward=50 * N) if threat else Budget(forward=N),
    )
    return ResultRecord(
        status="ok",
        cell_key=cell.key,
        cell=cell,
        evaluation=evaluation,
        result_digest=result_digest(cell.key, evaluation, None),
        provenance=PROVENANCE,
        timing=TIMING,
    )


@pytest.fixture(scope="session")
def board() -> Board:
    titles = {
        "a_id": "Clean accuracy",
        "r_id": "Robust accuracy",
        "a_ood": "Clean accuracy, shifted",
        "r_ood": "Robust accuracy, shifted",
    }
    digests = {"a_id": "id", "r_id@0": "id", "a_ood": "ood", "r_ood@0": "ood"}
    return Board(
        name="synthetic",
        version=1,
        title="Synthetic",
        suite=SuiteRef(name="synthetic", version=1),
        columns=tuple(Column(key=key, title=title) for key, title in titles.items()),
        order=("r_id", "a_id"),
        pairs=(("a_id", "r_id"), ("a_id", "a_ood")),
        minimum=Minimum(examples={"r_id@0": N}, seeds=2, forward_per_example=100, attacks=("pgd",)),
        threats=(THREAT,),
        ids={role: ids_digest(ids_of(side)) for role, side in digests.items()},
    )


@pytest.fixture(scope="session")
def make_entry(board: Board) -> MakeEntry:
    def make(name: str, level: float = 0.8, seeds: Sequence[int] = (0, 1), flags: tuple[Flag, ...] = ()) -> Entry:
        records: dict[str, ResultRecord] = {}
        rows = []
        for seed in seeds:
            rng = np.random.default_rng([seed, *name.encode()])
            train_key = sha256_hex(f"{name}/{seed}".encode())
            cells = {}
            for side, less in (("id", 0.0), ("ood", 0.2)):
                clean = rng.random(N) < level - less
                pgd = clean & (rng.random(N) < 0.7)
                robust = pgd & (rng.random(N) < 0.9)
                plain = record_of(train_key, side, {"clean": clean})
                attacked = record_of(train_key, side, {"clean": clean, "pgd": pgd, "robust": robust}, THREAT, flags)
                cells[f"a_{side}"], cells[f"r_{side}@0"] = plain.cell_key, attacked.cell_key
                records |= {plain.cell_key: plain, attacked.cell_key: attacked}
            rows.append(RowSeed(label=name, method="erm", seed=seed, train_key=train_key, cells=cells))
        return assemble_entry(board, name, Claims(title=f"Model {name}", architecture="small-cnn"), rows, records)

    return make


@pytest.fixture(scope="session")
def make_reported(board: Board) -> MakeEntry:
    def make(name: str, title: str = "", **columns: float) -> Entry:
        return Entry(
            id=name,
            board=board.name,
            badge="reported",
            claims=Claims(title=title or f"Paper {name}"),
            columns={key: Value(value=value, written=f"{100 * value:g}") for key, value in columns.items()},
            origin=Origin(system="test", file="x.json", sha256="0" * 64, fields={"name": title}),
        )

    return make


@pytest.fixture
def shelf(board: Board, tmp_path: Path) -> Shelf:
    """An empty board on disk."""
    folder = tmp_path / board.name
    folder.mkdir()
    (folder / "board.yaml").write_text(board_yaml(board, "A board for tests."))
    return Shelf(folder)
