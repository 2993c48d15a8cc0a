from __future__ import annotations

import safetensors.numpy

from robusteval.execution.events import SilentListener
from robusteval.execution.runner import RunOptions, run_plan
from robusteval.planning.expand import expand
from robusteval.planning.loader import load_suite
from robusteval.planning.plan import make_plan
from robusteval.store.store import Store

SUITE = """
name: tiny
version: 1
summary: One model under AutoAttack.
train: {data: digits, domains: [upright], architecture: {name: small-cnn, params: {width: 4}}}
methods: [{method: erm, params: {epochs: 1, lr: 0.05}}]
evaluate:
  id: {examples: 20, robust_examples: 12}
  ood: {domains: [inverted], examples: 10, robust_examples: 5}
  threats:
    - epsilon: 8/255
      attacks: [{name: autoattack, params: {version: custom, attacks: [apgd-ce, square], steps: 4, queries: 10}}]
"""


def test_a_suite_can_name_autoattack_and_its_record_leads_to_the_details(tmp_path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(SUITE)
    store = Store.open(tmp_path / "store")
    plan = make_plan(expand(load_suite(str(file))), store.state)
    run_plan(plan, store, RunOptions(executor="serial"), SilentListener())
    evaluations = [record.evaluation for record in store.records() if record.evaluation is not None]
    attacked = [evaluation for evaluation in evaluations if "robust" in evaluation.outcomes]
    assert len(attacked) == 2
    for evaluation in attacked:
        n = evaluation.outcomes["robust"].n
        assert evaluation.spec == f"aa-custom(apgd-ce,square;steps=4;queries=10)@linf-8/255@n{n}@seed0@engine1"
        assert evaluation.details is not None
        assert safetensors.numpy.load(store.get_artefact(evaluation.details))["margin"].shape == (2, n)
    assert all(evaluation.details is None for evaluation in evaluations if evaluation not in attacked)
