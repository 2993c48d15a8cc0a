from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robusteval.planning.expand import expand
from robusteval.planning.expanded import Expansion
from robusteval.planning.loader import load_suite
from robusteval.planning.only import Filter
from robusteval.planning.plan import make_plan
from robusteval.schema.cells import EvalCell, TrainCell
from robusteval.schema.source import SourceError

DOMAINS = ("art", "cartoon", "photo")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for domain in DOMAINS:
        for label in ("cat", "dog"):
            folder = tmp_path / "pictures" / domain / label
            folder.mkdir(parents=True)
            for index in range(10):
                Image.fromarray(np.full((16, 16, 3), 20 * index, dtype=np.uint8)).save(folder / f"{index}.png")
    return tmp_path


def suite(folder: Path, folds: str, ood: str = "{}", domains: str = "[art, cartoon, photo]") -> Path:
    path = folder / "suite.yaml"
    path.write_text(
        "name: folded\nversion: 1\nsummary: A suite with folds.\nseeds: [0, 1]\n"
        "train:\n"
        "  data: {name: image-folder, params: {path: ./pictures, cache: ./cache}}\n"
        f"  domains: {domains}\n  folds: {folds}\n  architecture: small-cnn\n"
        "methods:\n  - method: erm\n  - {method: aft, start: erm}\n"
        f"evaluate:\n  ood: {ood}\n  threats:\n    - {{epsilon: 0.1, attacks: [fgsm]}}\n"
    )
    return path


def trained_on(expansion: Expansion) -> dict[str, set[tuple[str, ...]]]:
    found: dict[str, set[tuple[str, ...]]] = {}
    for item in expansion.cells:
        if isinstance(item.cell, TrainCell):
            found.setdefault(item.fold, set()).add(item.cell.data.domains)
    return found


def test_leave_one_out_trains_without_each_domain_in_turn(tree: Path) -> None:
    expansion = expand(load_suite(suite(tree, "leave-one-out")))
    assert trained_on(expansion) == {
        "art": {("cartoon", "photo")},
        "cartoon": {("art", "photo")},
        "photo": {("art", "cartoon")},
    }
    assert len(expansion.stored.rows) == 2 * 2 * 3
    assert len([item for item in expansion.cells if isinstance(item.cell, TrainCell)]) == 12


def test_single_source_trains_on_each_domain_alone(tree: Path) -> None:
    expansion = expand(load_suite(suite(tree, "single-source")))
    assert trained_on(expansion) == {name: {(name,)} for name in DOMAINS}


@pytest.mark.parametrize("folds", ["leave-one-out", "single-source"])
def test_a_domain_apart_from_training_is_scored_as_a_whole(tree: Path, folds: str) -> None:
    expansion = expand(load_suite(suite(tree, folds)))
    for item in expansion.cells:
        if isinstance(item.cell, EvalCell) and item.role == "a_ood":
            others = tuple(name for name in DOMAINS if name != item.fold)
            assert item.cell.data.domains == (others if folds == "single-source" else (item.fold,))
            assert item.cell.data.n == 20 * len(item.cell.data.domains)


def test_rows_start_from_the_row_of_their_own_fold_and_train_cells_come_first(tree: Path) -> None:
    expansion = expand(load_suite(suite(tree, "leave-one-out")))
    folds = {item.key: item.fold for item in expansion.cells}
    assert all(folds[need] == item.fold for item in expansion.cells for need in item.needs)
    kinds = [isinstance(item.cell, EvalCell) for item in expansion.cells]
    assert kinds == sorted(kinds)


def test_a_fold_can_be_picked(tree: Path) -> None:
    expansion = expand(load_suite(suite(tree, "leave-one-out")))
    plan = make_plan(expansion, lambda key: ("pending", ""), Filter.parse("fold=art,seed=0"))
    assert {cell.title for cell in plan.cells if cell.role == "train"} == {
        "erm seed 0 [art]: train",
        "aft seed 0 [art]: train",
    }


@pytest.mark.parametrize(
    ("ood", "domains", "message"),
    [
        ("{domains: [art]}", "[art, cartoon, photo]", "both halves follow from train.domains; remove 'domains'"),
        ("{shifts: [contrast]}", "[art, cartoon, photo]", "both halves follow from train.domains; remove 'shifts'"),
        ("{}", "[art]", "need at least two domains"),
    ],
)
def test_what_folds_cannot_mean_is_one_line(tree: Path, ood: str, domains: str, message: str) -> None:
    with pytest.raises(SourceError) as error:
        load_suite(suite(tree, "leave-one-out", ood, domains))
    assert [message in problem.text for problem in error.value.problems] == [True]
