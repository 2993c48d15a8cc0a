from __future__ import annotations

from robusteval.schema.plans import role_of
from robusteval.scoring.notes import notes
from robusteval.scoring.render import flat_rows
from robusteval.scoring.table import score

SPEC = "aa-standard@linf-0.1@n20@seed0@engine1"


def _name(world, label, role):
    for seed in world.plan().row(label):
        record = world.records[seed.cells[role]]
        evaluation = record.evaluation.model_copy(update={"spec": SPEC})
        world.records[seed.cells[role]] = record.model_copy(update={"evaluation": evaluation})


def test_a_number_of_autoattack_is_named_in_the_table_the_notes_and_the_flat_rows(world):
    role = role_of("r_id")
    _name(world, "erm", role)
    table = score(world.plan(), world.records, world.groups)
    rows = {row.method: row for row in table.rows}
    assert rows["erm"].specs == {role: (SPEC,)}
    assert rows["pgd-at"].specs == {}
    assert f"AutoAttack: {role} {SPEC}." in notes(table)
    flat = {row["method"]: row for row in flat_rows(table)}
    assert (flat["erm"][f"spec[{role}]"], flat["pgd-at"][f"spec[{role}]"]) == (SPEC, None)


def test_a_table_without_autoattack_names_none(world):
    table = score(world.plan(), world.records, world.groups)
    assert not any(line.startswith("AutoAttack") for line in notes(table))
    assert not any(name.startswith("spec") for row in flat_rows(table) for name in row)
