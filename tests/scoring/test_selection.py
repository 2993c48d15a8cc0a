from __future__ import annotations

import numpy as np
import pytest

from robusteval.schema.cells import CellStart, EvalCell
from robusteval.schema.plans import ProtocolUse, StoredPlan
from robusteval.schema.records import ResultRecord, result_digest
from robusteval.scoring.notes import notes
from robusteval.scoring.outcomes import Outcomes
from robusteval.scoring.render import to_plain_rows
from robusteval.scoring.table import score

PROTOCOL = ProtocolUse(
    name="udim-sdg",
    digest="ab" * 32,
    average="macro",
    selection="training-domain",
    deviations=("1 seeds (protocol: 3)",),
)


def with_audit(world, label: str, accuracies: dict[int, float]) -> StoredPlan:
    """A world's plan in which one row also has the weights of its last epoch measured under shift."""
    rows = []
    for row in world.rows:
        if row.label == label:
            record = world.records[row.cells["a_ood"]]
            bits = world.bits(accuracies[row.seed], len(world.ood_domains), world.clean_n, row.seed)
            model = CellStart(cell=record.cell.model.cell, checkpoint="last")
            cell = record.cell.model_copy(update={"model": model})
            cell = EvalCell.model_validate(cell.model_dump(mode="json"))
            evaluation = record.evaluation.model_copy(
                update={"outcomes": {"clean": type(record.evaluation.outcomes["clean"]).pack(bits)}}
            )
            digest = result_digest(cell.key, evaluation, None)
            changed = {"cell": cell, "cell_key": cell.key, "evaluation": evaluation, "result_digest": digest}
            world.records[cell.key] = ResultRecord.model_validate(record.model_copy(update=changed).model_dump())
            rows.append(row.model_copy(update={"cells": {**row.cells, "a_ood:last": cell.key}}))
        else:
            rows.append(row)
    return world.plan(rows=tuple(rows), protocol=PROTOCOL)


def row_of(table, label: str):
    return next(row for row in table.rows if row.method == label)


def test_the_premium_is_what_choosing_on_the_shifted_data_would_add(world) -> None:
    # pgd-at has 65 % with both seeds; the other weights 75 % with one seed and 55 % with the other.
    plan = with_audit(world, "pgd-at", {0: 0.75, 1: 0.55})
    table = score(plan, world.records, world.groups)
    audit = row_of(table, "pgd-at").audit
    assert audit.rule == "last"
    assert audit.a_ood.value == pytest.approx(0.65)
    assert audit.oracle_premium == pytest.approx((0.75 + 0.65) / 2 - 0.65)
    assert row_of(table, "erm").audit is None


def test_worse_weights_have_no_negative_premium(world) -> None:
    table = score(with_audit(world, "pgd-at", {0: 0.5, 1: 0.5}), world.records, world.groups)
    assert row_of(table, "pgd-at").audit.oracle_premium == 0.0


def test_the_audit_changes_neither_values_nor_ranks(world) -> None:
    plain = score(world.plan(), world.records, world.groups)
    audited = score(with_audit(world, "pgd-at", {0: 0.9, 1: 0.9}), world.records, world.groups)
    assert [(row.a_ood, row.pareto, row.comparisons) for row in plain.rows] == [
        (row.a_ood, row.pareto, row.comparisons) for row in audited.rows
    ]


def test_the_table_shows_premium_protocol_and_deviations(world) -> None:
    table = score(with_audit(world, "pgd-at", {0: 0.75, 1: 0.75}), world.records, world.groups)
    header, rows = to_plain_rows(table)
    column = header.index("oracle premium")
    assert [row[column] for row in rows] == ["-", "+10.0", "-"]
    text = " ".join(notes(table))
    assert "Protocol udim-sdg (abababababab); deviations: 1 seeds (protocol: 3)." in text


def outcomes(right: list[int], domains: list[str], *, pooled: bool) -> Outcomes:
    ids = tuple(map(str, range(len(right))))
    return Outcomes(
        (0,),
        np.array([right], dtype=bool),
        tuple(domains),
        ids,
        False,
        "0" * 64,
        ("",) * len(right) if pooled else None,
    )


def test_pooled_targets_count_images_alike_and_others_domains() -> None:
    right, domains = [1, 1, 1, 1, 1, 1, 0, 0], ["sketch"] * 6 + ["photo"] * 2
    assert outcomes(right, domains, pooled=False).estimate().value == pytest.approx(0.5)
    assert outcomes(right, domains, pooled=True).estimate().value == pytest.approx(0.75)
    assert outcomes(right, domains, pooled=True).per_seed() == {0: pytest.approx(0.75)}


def test_only_the_shifted_half_is_pooled(world) -> None:
    micro = PROTOCOL.model_copy(update={"average": "micro"})
    table = score(world.plan(protocol=micro), world.records, world.groups)
    assert "ood: pooled images of rotated, inverted" in notes(table)[0]
    assert row_of(table, "erm").a_id == row_of(score(world.plan(), world.records, world.groups), "erm").a_id
