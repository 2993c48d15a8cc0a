from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robusteval.planning.expand import expand
from robusteval.planning.expanded import ExpandedCell, Expansion
from robusteval.planning.loader import load_suite
from robusteval.planning.only import Filter
from robusteval.planning.plan import make_plan
from robusteval.schema.cells import CellStart, TrainCell
from robusteval.schema.source import SourceError

DOMAINS = ("art", "cartoon", "photo", "sketch")
CHOSEN = "select: leave-one-domain-out"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for domain in DOMAINS:
        for label in ("cat", "dog"):
            folder = tmp_path / "pictures" / domain / label
            folder.mkdir(parents=True)
            for index in range(10):
                Image.fromarray(np.full((16, 16, 3), 20 * index, dtype=np.uint8)).save(folder / f"{index}.png")
    return tmp_path


def suite(folder: Path, *rows: str, folds: str = "folds: leave-one-out", domains: tuple[str, ...] = DOMAINS) -> Path:
    path = folder / "suite.yaml"
    written = "".join(f"  - {row}\n" for row in rows)
    path.write_text(
        "name: chosen\nversion: 1\nsummary: Selection by domains that are left out.\n"
        "train:\n  data: {name: image-folder, params: {path: ./pictures, cache: ./cache}}\n"
        f"  domains: [{', '.join(domains)}]\n  {folds}\n  architecture: small-cnn\n"
        f"methods:\n{written}evaluate:\n  threats:\n    - {{epsilon: 0.1, attacks: [fgsm]}}\n"
    )
    return path


def trainings(expansion: Expansion, role: str) -> list[ExpandedCell]:
    return [item for item in expansion.cells if item.role == role]


def test_every_pair_of_domains_is_left_out_once_as_in_domainbed(tree: Path) -> None:
    expansion = expand(load_suite(suite(tree, f"{{method: erm, params: {{{CHOSEN}}}}}")))
    inner = [item.cell for item in trainings(expansion, "selection")]
    left_out = [tuple(part.domains[0] for part in cell.watched) for cell in inner if isinstance(cell, TrainCell)]
    assert sorted(left_out) == sorted(combinations(DOMAINS, 2))
    for cell in inner:
        assert isinstance(cell, TrainCell)
        assert not set(cell.data.domains) & {part.domains[0] for part in cell.watched}
        assert {part.split for part in cell.watched} == {"train"}
        assert cell.method.params["select"] == "last"


def test_each_scored_training_is_selected_by_those_without_one_of_its_domains(tree: Path) -> None:
    expansion = expand(load_suite(suite(tree, f"{{method: erm, params: {{{CHOSEN}}}}}")))
    by_key = {item.key: item for item in expansion.cells}
    scored = trainings(expansion, "train")
    assert len(scored) == 4
    for item in scored:
        assert isinstance(item.cell, TrainCell)
        assert set(item.cell.selected_by) == set(DOMAINS) - {item.fold}
        assert set(item.needs) == set(item.cell.selected_by.values())
        for domain, key in item.cell.selected_by.items():
            other = by_key[key].cell
            assert isinstance(other, TrainCell)
            assert {part.domains[0] for part in other.watched} == {domain, item.fold}


def test_what_selects_is_measured_on_no_image_that_the_table_shows(tree: Path) -> None:
    loaded = load_suite(suite(tree, f"{{method: erm, params: {{{CHOSEN}}}}}", folds="", domains=("art", "photo")))
    expansion = expand(loaded)
    watched = {
        name
        for item in trainings(expansion, "selection")
        if isinstance(item.cell, TrainCell)
        for part in item.cell.watched
        for name in loaded.dataset.ids(part.domains[0], part.split)
    }
    shown = {name for domain in DOMAINS for name in loaded.dataset.ids(domain, "test")}
    assert watched and not watched & shown


def test_a_training_comes_after_those_that_select_it(tree: Path) -> None:
    cells = expand(load_suite(suite(tree, f"{{method: erm, params: {{{CHOSEN}}}}}"))).cells
    place = {item.key: index for index, item in enumerate(cells)}
    assert all(place[need] < place[item.key] for item in cells for need in item.needs)


def test_rows_of_other_rules_train_nothing_more(tree: Path) -> None:
    expansion = expand(load_suite(suite(tree, "method: erm", "{method: sam, params: {select: best-validation}}")))
    assert trainings(expansion, "selection") == []
    for item in trainings(expansion, "train"):
        written = item.cell.model_dump(mode="json", context={"canonical": True})
        assert not {"watched", "selected_by"} & set(written)


def test_a_batch_holds_as_many_images_of_each_domain_with_one_domain_fewer(tree: Path) -> None:
    row = f"{{method: erm, params: {{{CHOSEN}, iterations: 6, batch_size: 12}}}}"
    expansion = expand(load_suite(suite(tree, row)))
    sizes = {
        role: {item.cell.method.params["batch_size"] for item in trainings(expansion, role)}  # type: ignore[union-attr]
        for role in ("train", "selection")
    }
    assert sizes == {"train": {12}, "selection": {8}}


def test_a_row_that_starts_from_another_selects_from_starts_that_saw_as_little(tree: Path) -> None:
    expansion = expand(load_suite(suite(tree, "method: erm", f"{{method: aft, start: erm, params: {{{CHOSEN}}}}}")))
    by_key = {item.key: item.cell for item in expansion.cells}
    inner = [item.cell for item in trainings(expansion, "selection") if item.label == "aft"]
    assert len(inner) == 6
    for cell in inner:
        assert isinstance(cell, TrainCell) and isinstance(cell.start, CellStart)
        start = by_key[cell.start.cell]
        assert isinstance(start, TrainCell)
        assert start.data == cell.data


def test_one_fold_plans_only_the_trainings_that_it_needs(tree: Path) -> None:
    expansion = expand(load_suite(suite(tree, f"{{method: erm, params: {{{CHOSEN}}}}}")))
    plan = make_plan(expansion, lambda key: ("missing", ""), Filter.parse("fold=art"))
    assert plan.selecting == 3
    assert make_plan(expansion, lambda key: ("missing", "")).selecting == 6


def test_the_other_kept_weights_are_measured_under_shift(tree: Path) -> None:
    (row, *_) = expand(load_suite(suite(tree, f"{{method: erm, params: {{{CHOSEN}}}}}"))).stored.rows
    assert {"a_ood", "a_ood:last", "a_ood:training-domain"} <= set(row.cells)


@pytest.mark.parametrize(
    ("rows", "folds", "message"),
    [
        ((f"{{method: erm, params: {{{CHOSEN}}}}}",), "folds: single-source", "needs two training domains or more"),
        (
            ("method: erm", f"{{method: given, start: erm, params: {{{CHOSEN}}}}}"),
            "",
            "takes no parameters; remove select",
        ),
        (("method: erm", f"{{method: rift, start: erm, params: {{{CHOSEN}}}}}"), "", "select must be"),
    ],
)
def test_where_there_is_nothing_to_leave_out_the_line_is_named(
    tree: Path, rows: tuple[str, ...], folds: str, message: str
) -> None:
    with pytest.raises(SourceError) as error:
        load_suite(suite(tree, *rows, folds=folds))
    (problem,) = error.value.problems
    assert message in problem.text
    assert problem.line > 8
