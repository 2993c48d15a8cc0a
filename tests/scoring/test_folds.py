from __future__ import annotations

import pytest

from robusteval.schema.plans import RowSeed, StoredPlan
from robusteval.scoring.notes import notes
from robusteval.scoring.outcomes import read_outcomes
from robusteval.scoring.sides import side_of_plan
from robusteval.scoring.table import score

DOMAINS = ("art", "photo")


@pytest.fixture
def folded(make_world) -> tuple[object, StoredPlan]:
    """Two folds of one row with two seeds: 80 % and 40 % under shift, 90 % in distribution."""
    rows: list[RowSeed] = []
    records, sources = {}, {}
    for fold, accuracy in (("art", 0.8), ("photo", 0.4)):
        (other,) = (name for name in DOMAINS if name != fold)
        world = make_world(id_domains=(other,), ood_domains=(fold,))
        world.row("erm", (0.9, 0.5, accuracy, 0.2))
        rows += [row.model_copy(update={"fold": fold}) for row in world.rows]
        records |= world.records
        sources |= world.sources
    world.records, world.sources = records, sources
    return world, world.plan(rows=tuple(rows), id_domains=DOMAINS, ood_domains=DOMAINS)


def test_a_column_is_the_mean_over_the_folds(folded) -> None:
    world, plan = folded
    (row,) = score(plan, world.records, world.groups).rows
    assert row.a_ood.value == pytest.approx(0.6)
    assert row.a_ood.n == 2 * world.clean_n
    assert row.a_ood.seeds == {0: pytest.approx(0.6), 1: pytest.approx(0.6)}
    assert row.ranked


def test_a_target_keeps_its_name_and_a_source_says_in_which_fold(folded) -> None:
    world, plan = folded
    (row,) = score(plan, world.records, world.groups).rows
    assert {entry.domain for entry in row.domains if entry.side == "ood"} == {"art", "photo"}
    assert {entry.domain for entry in row.domains if entry.side == "id"} == {"photo [art]", "art [photo]"}
    assert row.worst["a_ood"].domain == "photo"


def test_a_missing_cell_names_its_fold(folded) -> None:
    world, plan = folded
    gone = next(row for row in plan.rows if row.fold == "photo" and row.seed == 1)
    del world.records[gone.cells["a_ood"]]
    table = score(plan, world.records, world.groups)
    (row,) = table.rows
    assert not row.ranked
    assert [(cell.fold, cell.seed, cell.role) for cell in row.missing] == [("photo", 1, "a_ood")]
    assert "a_ood of seed 1 [photo] not run" in " ".join(notes(table))
    assert set(row.a_ood.seeds) == {0}


def test_pooling_counts_images_alike_within_a_fold_only(folded) -> None:
    world, plan = folded
    pooled = read_outcomes(plan.row("erm"), "a_ood", "clean", world.records, world.groups, pooled=True)
    assert set(pooled.strata) == {"art", "photo"}


def test_folds_are_compared_one_by_one(folded) -> None:
    world, plan = folded
    side = side_of_plan("store", plan, world.records, world.groups)
    assert set(side.rows) == {"erm [art]", "erm [photo]"}
