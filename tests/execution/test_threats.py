"""A suite with a union and unseen threats, from its file to its table."""

from __future__ import annotations

from pathlib import Path

from robusteval.execution.events import SilentListener
from robusteval.execution.runner import RunOptions, run_plan
from robusteval.planning.expand import expand
from robusteval.planning.loader import load_suite
from robusteval.planning.plan import make_plan
from robusteval.scoring.render import to_plain_rows
from robusteval.scoring.table import score
from robusteval.store.store import Store

SUITE = """
name: tiny
version: 1
summary: One model under everything.
train: {data: digits, domains: [upright], architecture: {name: small-cnn, params: {width: 4}}}
methods: [{method: erm, params: {epochs: 2, lr: 0.05}}]
evaluate:
  id: {examples: 24, robust_examples: 24}
  ood: {domains: [inverted], examples: 8, robust_examples: 4}
  threats:
    - {epsilon: 0.05, attacks: [{name: pgd, params: {steps: 3}}]}
    - {norm: spatial, rotation: 20, translation: 0.05, attacks: [{name: spatial, params: {angles: 3, shifts: 3}}]}
  unseen_threats:
    - {norm: recolour, epsilon: 0.2, attacks: [{name: recolour, params: {steps: 3}}]}
    - {norm: l2, epsilon: 1, attacks: [{name: pgd, params: {steps: 3}}]}
"""


def test_a_suite_measures_a_union_and_unseen_threats_and_shows_them_beside_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(SUITE)
    store = Store.open(tmp_path / "store")
    plan = make_plan(expand(load_suite(str(file))), store.state)
    run_plan(plan, store, RunOptions(executor="serial"), SilentListener())
    records = {record.cell_key: record for record in store.records()}
    assert {record.status for record in records.values()} == {"ok"}
    table = score(plan.stored, records)
    (row,) = table.rows
    assert row.ranked
    assert row.union is not None
    assert row.union.r_id is not None
    assert row.r_id is not None
    assert row.a_id is not None
    turned = row.threats["spatial-20deg-0.05"].r_id
    assert turned is not None
    assert row.union.r_id.value <= min(row.r_id.value, turned.value) <= row.a_id.value
    assert list(row.unseen) == ["recolour-0.2", "l2-1"]
    assert row.r_ood_threats is not None
    assert row.r_ood_threats.n == 24
    header, _ = to_plain_rows(table)
    assert {"R_id union", "R_ood union", "R_ood threats"} <= set(header)
