"""What holds for every registered method, on one small problem: a row a method, every property for every row."""

from __future__ import annotations

import pytest
import torch

from robusteval.methods import METHODS
from robusteval.methods.resolve import build_method, resolve_method
from robusteval.methods.trainer import train
from robusteval.store.scratch import Scratch

SHORT = {"epochs": 3, "batch_size": 16, "lr": 0.02}
ATTACK = {"epsilon": "0.1", "step_size": "0.05", "steps": 2}

TABLE = {
    "erm": SHORT,
    "pgd-at": {**SHORT, **ATTACK},
    "aft": {**SHORT, **ATTACK},
    "sam": SHORT,
    "advstyle": {**SHORT, "after": ["0", "3"]},
    "udim": {**SHORT, "warmup": 0.34},
    "rift": {**SHORT, **ATTACK, "criticality_epochs": 2, "interpolations": 2},
    "lp-ft": {**SHORT, "grid": 5},
}
"""Method to parameters that make it short."""

PASSES = dict.fromkeys(TABLE, 0.05) | {"rift": 0.9, "lp-ft": 0.5}
"""How far, as a fraction, the estimated passes may be from the counted ones; what a method does before the first epoch
depends on the network and weighs more in a short run."""


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def trained(network, stripes):
    """Trains one method on the small problem; `at` kills it at that report of progress."""

    def run(name, scratch=None, at=0):
        left = at

        def progress(fraction, what):
            nonlocal left
            left -= 1
            if left == 0:
                raise KilledError

        return train(
            build_method(resolve_method(name, TABLE[name])),
            model=network(0),
            train=stripes(40, domains=("plain", "other")),
            validation=stripes(20, 1),
            seed=7,
            scratch=scratch,
            progress=progress,
        )

    return run


def test_every_method_has_a_row():
    assert set(TABLE) == {name for name in METHODS.names() if METHODS.load(name).trains}


@pytest.mark.parametrize("name", TABLE)
def test_every_parameter_is_explained_and_has_a_default(name):
    fields = METHODS.load(name).Params.model_fields
    assert [field for field, info in fields.items() if not info.description or info.is_required()] == []


@pytest.mark.parametrize("name", TABLE)
def test_every_kill_is_survived_bit_for_bit(trained, weights_of, same_bits, tmp_path, name):
    whole = trained(name)
    scratch = Scratch(tmp_path / "cell")
    kills = 0
    for at in (1, 3, 4, 5, 7, 8):
        torch.manual_seed(at)
        try:
            trained(name, scratch, at)
        except KilledError:
            kills += 1
    resumed = trained(name, scratch)
    assert kills >= 3
    assert same_bits(weights_of(whole.model), weights_of(resumed.model))
    assert (whole.budget, whole.selection_budget) == (resumed.budget, resumed.selection_budget)
    assert (whole.selected_on, whole.selected_epoch) == (resumed.selected_on, resumed.selected_epoch)
    assert whole.history == resumed.history
    assert whole.diagnostics == resumed.diagnostics


@pytest.mark.parametrize("name", TABLE)
def test_the_model_comes_back_trained_and_otherwise_as_it_was(trained, network, name):
    before, outcome = network(0), trained(name)
    model = outcome.model
    shapes = {key: value.shape for key, value in before.state_dict().items()}
    assert {key: value.shape for key, value in model.state_dict().items()} == shapes
    assert not all(torch.equal(value, model.state_dict()[key]) for key, value in before.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert [module.inplace for module in model.modules() if hasattr(module, "inplace")] == [
        module.inplace for module in before.modules() if hasattr(module, "inplace")
    ]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", TABLE)
def test_history_and_selection_are_complete(trained, name):
    outcome = trained(name)
    assert [entry["epoch"] for entry in outcome.history] == [1.0, 2.0, 3.0]
    for entry in outcome.history:
        assert {"epoch", "lr", "loss", "validation_accuracy"} <= set(entry)
        assert 0.0 <= entry["validation_accuracy"] <= 1.0
    assert 1 <= outcome.selected_epoch <= 3
    assert outcome.selected_on in {"last", "validation", "validation-robust"}
    assert outcome.selection_budget.forward >= 3 * 20


@pytest.mark.parametrize("name", TABLE)
def test_the_estimate_of_passes_is_near_the_count(trained, name):
    outcome = trained(name)
    kind = METHODS.load(name)
    forward, backward = kind.passes(kind.Params.model_validate(TABLE[name]))
    assert outcome.budget.forward == pytest.approx(forward * 40 * 3, rel=PASSES[name])
    assert outcome.budget.backward == pytest.approx(backward * 40 * 3, rel=PASSES[name])


@pytest.mark.parametrize("name", TABLE)
def test_progress_only_grows(network, stripes, name):
    seen = []
    train(
        build_method(resolve_method(name, TABLE[name])),
        model=network(0),
        train=stripes(40),
        validation=stripes(20, 1),
        seed=7,
        progress=lambda fraction, what: seen.append(fraction),
    )
    assert seen == sorted(seen)
    assert seen[0] >= 0.0
    assert 0.5 < seen[-1] <= 1.0
