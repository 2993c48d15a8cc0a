from __future__ import annotations

from pathlib import Path

import pytest

from robusteval.planning.expand import expand
from robusteval.planning.expanded import Expansion
from robusteval.planning.loader import load_suite
from robusteval.planning.only import Filter
from robusteval.planning.plan import make_plan
from robusteval.schema.cells import EvalCell
from robusteval.schema.source import SourceError
from robusteval.schema.threats import RecolourThreat, SpatialThreat
from robusteval.schema.types import ThreatModel

SUITE = """\
name: tiny
version: 1
summary: A suite.
train: {data: digits, domains: [upright], architecture: small-cnn}
methods: [{method: erm, params: {epochs: 1}}]
evaluate:
  id: {examples: 20, robust_examples: 10}
  ood: {domains: [inverted], examples: 8, robust_examples: 4}
  threats:
    - {epsilon: 8/255, attacks: [pgd]}
    - {norm: l2, epsilon: 0.5, attacks: [pgd]}
  unseen_threats:
    - {epsilon: 12/255, attacks: [pgd]}
    - {norm: spatial, rotation: 30, translation: 0.1, attacks: [{name: spatial, params: {angles: 7, shifts: 3}}]}
    - {norm: recolour, epsilon: 0.06, attacks: [{name: recolour, params: {steps: 10}}]}
"""


def loaded(folder: Path, text: str = SUITE) -> Expansion:
    (folder / "s.yaml").write_text(text)
    return expand(load_suite(folder / "s.yaml"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Expansion:
    return loaded(tmp_path_factory.mktemp("suite"))


def test_unseen_threats_have_roles_of_their_own_on_the_attacked_examples_in_distribution(tiny: Expansion) -> None:
    cells = {item.role: item.cell for item in tiny.cells if isinstance(item.cell, EvalCell)}
    assert [role for role in cells if role.startswith("r_")] == [
        "r_id@0",
        "r_id@1",
        "r_unseen@0",
        "r_unseen@1",
        "r_unseen@2",
        "r_ood@0",
        "r_ood@1",
    ]
    assert {cell.data.ids_digest for role, cell in cells.items() if role[:4] in ("r_id", "r_un")} == {
        cells["r_id@0"].data.ids_digest
    }
    assert [type(cells[f"r_unseen@{index}"].threat) for index in range(3)] == [
        ThreatModel,
        SpatialThreat,
        RecolourThreat,
    ]


def test_the_stored_plan_knows_the_unseen_threats(tiny: Expansion) -> None:
    stored = tiny.stored
    assert [str(threat) for threat in stored.unseen_threats] == ["linf-12/255", "spatial-30deg-0.1", "recolour-0.06"]
    assert stored.union
    assert type(stored).model_validate_json(stored.model_dump_json()) == stored


def test_the_plan_knows_what_they_cost_and_can_pick_them(tiny: Expansion) -> None:
    passes = {item.role: item.passes for item in tiny.cells}
    assert passes["r_unseen@1"] == 10 * (1 + 7 * 9 + 2)
    assert passes["r_unseen@2"] == 10 * (1 + 10 + 1 + 2 + 10)
    plan = make_plan(tiny, lambda key: ("missing", ""), Filter.parse("role=r_unseen"))
    assert [cell.role for cell in plan.cells] == ["train", "r_unseen@0", "r_unseen@1", "r_unseen@2"]
    assert plan.cells[2].title == "erm seed 0: unseen threat (spatial-30deg-0.1)"


def test_unseen_threats_and_the_union_change_no_key_of_the_rest(tiny: Expansion, tmp_path: Path) -> None:
    without = loaded(tmp_path, SUITE[: SUITE.index("  unseen_threats")] + "score: {union: false}\n")
    assert not without.stored.union
    keys = {item.role: item.key for item in tiny.cells if not item.role.startswith("r_unseen")}
    assert {item.role: item.key for item in without.cells} == keys


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        (
            "{epsilon: 12/255, attacks: [pgd]}",
            "{epsilon: 16/510, attacks: [pgd]}",
            13,
            "on line 10 already, so it is not",
        ),
        ("{epsilon: 12/255, attacks: [pgd]}", "{attacks: [pgd]}", 13, "norm linf needs 'epsilon', such as 8/255"),
        (
            "rotation: 30, translation: 0.1",
            "epsilon: 0.1",
            14,
            "norm spatial has no 'epsilon'; its limits are 'rotation'",
        ),
        ("rotation: 30, translation: 0.1", "rotation: 0", 14, "a rotation or translation of 0 allows no attack"),
        ("rotation: 30", "rotation: 200", 14, "unseen_threats[1].rotation must be at most 180"),
        ("translation: 0.1", "translation: -1", 14, "unseen_threats[1].translation must be at least 0"),
        ("rotation: 30", "rotatoin: 30", 14, "did you mean 'rotation'"),
        ("name: spatial", "name: pgd", 14, "unknown key 'angles'"),
        ("{name: recolour, params: {steps: 10}}", "spatial", 15, "attack 'spatial' does not support the norm recolour"),
        ("{name: recolour, params: {steps: 10}}", "pgd", 15, "supports l2, linf; use attack 'recolour' there"),
        ("norm: recolour, epsilon: 0.06", "norm: recolour", 15, "norm recolour needs 'epsilon'"),
        ("epsilon: 0.06", "epsilon: 0", 15, "epsilon 0 allows no attack"),
        ("epsilon: 0.06", "epsilon: 1.5", 15, "moves colours out of [0, 1]"),
        ("epsilon: 0.06", "epsilon: 0.06, grid: 1", 15, "unseen_threats[2].grid must be at least 2"),
        ("[{name: spatial, params: {angles: 7, shifts: 3}}]", "[]", 14, "attacks must have at least 1"),
    ],
)
def test_a_threat_that_makes_no_sense_is_one_line_with_its_place(
    tmp_path: Path, old: str, new: str, line: int, says: str
) -> None:
    assert SUITE.count(old) == 1
    with pytest.raises(SourceError) as caught:
        loaded(tmp_path, SUITE.replace(old, new))
    first = caught.value.located()[0]
    assert f"s.yaml:{line}: " in first
    assert says in first
