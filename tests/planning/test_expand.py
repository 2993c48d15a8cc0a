from __future__ import annotations

from pathlib import Path

import pytest

from robusteval.planning.expand import expand
from robusteval.planning.expanded import Expansion
from robusteval.planning.loader import load_suite
from robusteval.schema.cells import CellStart, EvalCell, TrainCell, WeightsStart
from robusteval.schema.digest import sha256_hex

SUITE = """\
name: tiny
version: 3
summary: A suite.
seeds: [0, 5]
train: {data: digits, domains: [upright], architecture: small-cnn}
methods:
  - {method: aft, start: erm, params: {epochs: 2}}
  - {method: lp-ft, start: aft}
  - {method: erm, params: {epochs: 3}}
evaluate:
  id: {examples: 40, robust_examples: 10}
  ood: {examples: 20, robust_examples: 5}
  threats:
    - {epsilon: 16/510, attacks: [pgd]}
    - {norm: l2, epsilon: 0.5, attacks: [fgsm]}
  seed: 7
"""


def expansion(folder: Path, text: str = SUITE) -> Expansion:
    (folder / "s.yaml").write_text(text)
    return expand(load_suite(folder / "s.yaml"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Expansion:
    return expansion(tmp_path_factory.mktemp("suite"))


def test_there_is_one_train_cell_a_row_and_seed_and_one_eval_cell_a_role(tiny: Expansion) -> None:
    kinds = [type(item.cell) for item in tiny.cells]
    assert kinds.count(TrainCell) == 3 * 2
    assert kinds.count(EvalCell) == 3 * 2 * 6
    assert len({item.key for item in tiny.cells}) == len(tiny.cells)


def test_every_cell_comes_after_those_it_needs(tiny: Expansion) -> None:
    seen: set[str] = set()
    for item in tiny.cells:
        assert set(item.needs) <= seen
        seen.add(item.key)


def test_a_row_starts_from_the_same_seed_of_its_start(tiny: Expansion) -> None:
    by_name = {(item.label, item.seed): item for item in tiny.cells if item.role == "train"}
    for seed in (0, 5):
        assert by_name["aft", seed].cell.start == CellStart(cell=by_name["erm", seed].key)  # type: ignore[union-attr]
        assert by_name["lp-ft", seed].needs == (by_name["aft", seed].key,)
        assert by_name["erm", seed].cell.start is None  # type: ignore[union-attr]


def test_levels_are_independent_and_in_order(tiny: Expansion) -> None:
    assert [sorted({item.label for item in level}) for level in tiny.levels] == [["erm"], ["aft"], ["lp-ft"]]


def test_every_parameter_is_resolved(tiny: Expansion) -> None:
    train = next(item.cell for item in tiny.cells if item.title == "erm seed 0: train")
    assert isinstance(train, TrainCell)
    assert train.method.params["epochs"] == 3
    assert train.method.params["momentum"] == 0.9
    assert "width" in train.architecture.params
    attacked = next(item.cell for item in tiny.cells if item.label == "erm" and item.role == "r_id@0")
    assert isinstance(attacked, EvalCell)
    assert attacked.evaluator.params["attacks"][0]["params"]["steps"] == 20
    assert str(attacked.threat) == "linf-16/510"
    assert attacked.seed == 7


def test_roles_have_their_slices(tiny: Expansion) -> None:
    cells = {item.role: item.cell for item in tiny.cells if item.label == "erm" and item.seed == 0}
    sizes = {role: cell.data.n for role, cell in cells.items()}
    assert sizes == {"train": 1077, "a_id": 40, "r_id@0": 10, "r_id@1": 10, "a_ood": 140, "r_ood@0": 35, "r_ood@1": 35}
    assert cells["a_id"].data.domains == ("upright",)
    assert "upright" not in cells["a_ood"].data.domains
    assert {role: cell.evaluator.name for role, cell in cells.items() if isinstance(cell, EvalCell)} == {
        "a_id": "clean",
        "a_ood": "shift",
        **dict.fromkeys(["r_id@0", "r_id@1", "r_ood@0", "r_ood@1"], "adversarial"),
    }


def test_the_stored_plan_points_at_the_cells(tiny: Expansion) -> None:
    by_key = {item.key: item for item in tiny.cells}
    assert (tiny.stored.suite, tiny.stored.version) == ("tiny", 3)
    assert tiny.stored.labels == ("aft", "lp-ft", "erm")
    for row in tiny.stored.rows:
        assert row.train_key is not None
        assert by_key[row.train_key].role == "train"
        for role, key in row.cells.items():
            item = by_key[key]
            assert (item.role, item.label, item.seed) == (role, row.label, row.seed)


def test_passes_follow_the_methods_and_attacks(tiny: Expansion) -> None:
    passes = {item.role: item.passes for item in tiny.cells if item.label == "erm" and item.seed == 0}
    assert passes["train"] == 2 * 3 * 1077
    assert passes["a_id"] == 40
    assert passes["r_id@0"] >= 10 * 2 * 20
    aft = next(item for item in tiny.cells if item.title == "aft seed 0: train")
    assert aft.passes >= 2 * 1077 * 2 * 10


def test_what_a_suite_calls_things_is_not_part_of_a_key(tiny: Expansion, tmp_path: Path) -> None:
    renamed = SUITE.replace("name: tiny", "name: other").replace("version: 3", "version: 4")
    renamed = renamed.replace("{method: erm,", "{method: erm, label: natural,").replace("start: erm", "start: natural")
    renamed = renamed.replace("16/510", "8/255")
    assert [item.key for item in expansion(tmp_path, renamed).cells] == [item.key for item in tiny.cells]


def test_rows_that_ask_the_same_question_share_their_cells(tmp_path: Path) -> None:
    twice = SUITE.replace(
        "  - {method: erm,", "  - {method: erm, label: again, params: {epochs: 3}}\n  - {method: erm,"
    )
    found = expansion(tmp_path, twice)
    again, erm = (next(row for row in found.stored.rows if row.label == name) for name in ("again", "erm"))
    assert again.cells == erm.cells
    assert len(found.cells) == 3 * 2 * 7


def test_a_start_checkpoint_is_known_by_its_content(tmp_path: Path) -> None:
    from robusteval.models.build import build_classifier
    from robusteval.models.checkpoints import save_checkpoint
    from robusteval.schema.types import Component

    parts = {"classes": 10, "input_shape": (3, 16, 16), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    model = build_classifier(Component(name="small-cnn"), seed=0, **parts)  # type: ignore[arg-type]
    blob = save_checkpoint(model, Component(name="small-cnn"), class_names=None)
    (tmp_path / "w.safetensors").write_bytes(blob)
    found = expansion(tmp_path, SUITE.replace("start: erm", "start: w.safetensors"))
    digest = sha256_hex(blob)
    assert found.weights == {digest: tmp_path / "w.safetensors"}
    aft = next(item for item in found.cells if item.title == "aft seed 0: train")
    assert aft.cell.start == WeightsStart(weights=digest)  # type: ignore[union-attr]
    assert aft.needs == ()


def test_all_domains_trained_on_leaves_the_shifted_half_empty(tmp_path: Path) -> None:
    domains = "upright, rotated, inverted, coloured, textured, stroke, blurred, occluded"
    found = expansion(tmp_path, SUITE.replace("domains: [upright]", f"domains: [{domains}]"))
    assert {item.role for item in found.cells} == {"train", "a_id", "r_id@0", "r_id@1"}
    assert found.stored.ood_domains == ()
