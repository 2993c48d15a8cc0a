from __future__ import annotations

import pytest
import torch

from robusteval.methods import erm
from robusteval.methods.advstyle import AdvStyle
from robusteval.methods.leave_one_out import chosen_validation, keeping, watching
from robusteval.methods.trainer import train
from robusteval.methods.validation import clean_accuracy
from robusteval.schema.errors import CellError
from robusteval.store.scratch import Scratch


class KilledError(Exception):
    """Stands for the end of the process."""


def killed_after(reports):
    left = [reports]

    def progress(fraction, what):
        left[0] -= 1
        if left[0] == 0:
            raise KilledError

    return progress


def recipe(validations=4):
    return erm.Erm(erm.Params(epochs=validations, batch_size=16, lr=0.05, select="leave-one-domain-out"))


def plain(epochs):
    """The same run ended early, which the constant schedule allows."""
    return erm.Erm(erm.Params(epochs=epochs, batch_size=16, lr=0.05, schedule="constant"))


def constant():
    return erm.Erm(erm.Params(epochs=4, batch_size=16, lr=0.05, schedule="constant", select="leave-one-domain-out"))


@pytest.mark.parametrize("validation", [1, 3, 4])
def test_the_weights_of_the_chosen_validation_are_kept(network, stripes, weights_of, same_bits, validation):
    data = {"train": stripes(40), "validation": stripes(20, 1), "seed": 5}
    kept = train(keeping(constant(), validation), model=network(0), **data)
    alone = train(plain(validation), model=network(0), **data)
    assert same_bits(weights_of(kept.model), weights_of(alone.model))
    assert kept.selected_on == "leave-one-domain-out"
    assert not kept.model.training


def test_the_other_rules_keep_what_they_would_have_kept(network, stripes):
    data = {"train": stripes(40), "validation": stripes(20, 1), "seed": 5}
    kept = train(keeping(constant(), 2), model=network(0), **data)
    whole = train(plain(4), model=network(0), **data)
    for rule in ("last", "training-domain"):
        found, expected = kept.checkpoints[rule], whole.checkpoints[rule]
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_watching_changes_nothing_and_says_what_each_validation_reached(network, stripes, weights_of, same_bits):
    data = {"train": stripes(40), "validation": stripes(20, 1), "seed": 5}
    watched = {"one": stripes(24, 2), "two": stripes(36, 3)}
    run = train(watching(constant(), watched), model=network(0), **data)
    accuracies = run.diagnostics["watched"]
    for count in (1, 2, 3, 4):
        alone = train(plain(count), model=network(0), **data)
        for name, images in watched.items():
            assert accuracies[name][count - 1] == clean_accuracy(alone.model, images)
    assert same_bits(weights_of(run.model), weights_of(alone.model))
    assert run.budget == alone.budget
    assert run.selection_budget.forward == alone.selection_budget.forward + 4 * (24 + 36)


@pytest.mark.parametrize("reports", [3, 5, 8, 11])
def test_a_killed_run_goes_on_with_what_it_watched_and_kept(network, stripes, weights_of, same_bits, tmp_path, reports):
    data = {"train": stripes(40), "validation": stripes(20, 1), "seed": 5}
    watched = {"one": stripes(24, 2)}
    for name, build in (("keep", lambda: keeping(recipe(), 2)), ("watch", lambda: watching(recipe(), watched))):
        whole = train(build(), model=network(0), **data)
        scratch = Scratch(tmp_path / name)
        with pytest.raises(KilledError):
            train(build(), model=network(0), scratch=scratch, progress=killed_after(reports), **data)
        parts = train(build(), model=network(0), scratch=scratch, **data)
        assert same_bits(weights_of(whole.model), weights_of(parts.model))
        assert whole.diagnostics == parts.diagnostics
        assert whole.selection_budget == parts.selection_budget


def test_a_recipe_that_changes_the_network_finishes_it_as_ever(network, stripes):
    data = {"train": stripes(40), "validation": stripes(20, 1), "seed": 5}
    params = AdvStyle.Params(epochs=2, batch_size=16, select="leave-one-domain-out")
    model = network(0)
    names = set(model.state_dict())
    train(keeping(AdvStyle(params), 1), model=model, **data)
    assert set(model.state_dict()) == names


def test_the_first_of_the_best_validations_is_chosen():
    assert chosen_validation([[0.5, 0.75, 0.5], [0.25, 0.5, 0.75]]) == 2
    assert chosen_validation([[0.1, 0.2]]) == 2


@pytest.mark.parametrize("accuracies", [[], [[]], [[0.5], [0.5, 0.5]]])
def test_runs_that_do_not_belong_together_choose_nothing(accuracies):
    with pytest.raises(CellError, match="validated"):
        chosen_validation(accuracies)


def test_a_validation_that_never_was_cannot_be_kept(network, stripes):
    with pytest.raises(CellError, match="validation 9 was chosen, but the run had 4"):
        train(keeping(recipe(), 9), model=network(0), train=stripes(40), validation=stripes(20, 1), seed=0)
