from __future__ import annotations

import pytest
import torch

import robusteval
from robusteval.schema.errors import UsageError


def test_a_gate_asks_about_the_examples_and_the_threat_of_a_cell(gate, network) -> None:
    modes = [module.training for module in network.modules()]
    easy = robusteval.gate(network, gate, threshold=0.02)
    hard = robusteval.gate(network, gate, threshold=0.98, attacks=["fgsm"], confidence=0.9)
    assert (easy.decision, hard.decision) == ("reached", "missed")
    assert easy.n == hard.n == 40
    assert hard.attacked < 40
    assert all(name.startswith("upright/") for name in easy.ids)
    shifted = robusteval.gate(network, gate, threshold=0.98, cell="r_ood@0")
    assert shifted.n == 10
    assert [module.training for module in network.modules()] == modes


def test_a_cell_that_is_not_attacked_is_refused(gate, network) -> None:
    with pytest.raises(UsageError, match=r"no attacked cell 'a_id'; it has r_id@0, r_ood@0"):
        robusteval.gate(network, gate, threshold=0.5, cell="a_id")


def test_the_answer_is_that_of_the_evaluation(gate, network, tmp_path) -> None:
    found = robusteval.evaluate(network, gate, cells=["r_id"], store=tmp_path, check_input=False)
    accuracy = found.scores.rows[0].r_id.value
    for threshold, decision in ((accuracy, "reached"), (accuracy + 1 / 40, "missed")):
        assert robusteval.gate(network, gate, threshold=threshold, attacks=["fgsm"]).decision == decision


def test_parameters_and_gradients_are_left_alone(gate, network) -> None:
    before = [(parameter.detach().clone(), parameter.requires_grad) for parameter in network.parameters()]
    robusteval.gate(network, gate, threshold=0.5)
    for parameter, (value, flag) in zip(network.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.requires_grad == flag
