from __future__ import annotations

import pytest
import torch

from robusteval.methods import erm, pgd_at
from robusteval.methods.trainer import train
from robusteval.methods.training_batches import steps_per_epoch
from robusteval.schema.errors import CellError, CorruptRecordError, DataError, UsageError
from robusteval.store.scratch import Scratch


class KilledError(Exception):
    """Stands for the end of the process."""


class Killer:
    """Raises at the n-th report of progress."""

    def __init__(self, at):
        self.left = at

    def __call__(self, fraction, what):
        self.left -= 1
        if self.left == 0:
            raise KilledError


def outcome_in_words(outcome):
    return (
        outcome.budget,
        outcome.selection_budget,
        outcome.selected_on,
        outcome.selected_epoch,
        outcome.history,
        outcome.diagnostics,
    )


METHODS = {
    "sgd": lambda: erm.Erm(erm.Params(epochs=4, batch_size=16, lr=0.05)),
    "adam": lambda: erm.Erm(
        erm.Params(epochs=4, batch_size=16, lr=0.01, optimizer="adam", augment=[{"name": "flip"}], schedule="cyclic")
    ),
    "drawn": lambda: erm.Erm(
        erm.Params(iterations=11, evaluate_every=4, batch_size=16, lr=0.05, select="best-validation")
    ),
    "best": lambda: pgd_at.PgdTraining(
        pgd_at.Params(epochs=4, batch_size=16, lr=0.1, steps=1, epsilon="0.1", select="best-validation")
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_run_killed_again_and_again_equals_an_undisturbed_one(
    network, stripes, weights_of, same_bits, tmp_path, name
):
    data = {"train": stripes(40), "validation": stripes(20, 1), "seed": 5}
    whole = train(METHODS[name](), model=network(0), **data)
    scratch = Scratch(tmp_path / "cell")
    kills = 0
    for at in (2, 4, 5, 6, 9, 11, 1000):
        torch.manual_seed(at)
        try:
            parts = train(METHODS[name](), model=network(0), scratch=scratch, progress=Killer(at), **data)
        except KilledError:
            kills += 1
    assert kills >= 4
    assert same_bits(weights_of(whole.model), weights_of(parts.model))
    assert outcome_in_words(whole) == outcome_in_words(parts)


def test_a_finished_run_is_not_trained_again(network, stripes, weights_of, same_bits, tmp_path):
    data = {"train": stripes(40), "validation": stripes(20, 1), "seed": 5, "scratch": Scratch(tmp_path)}
    first = train(METHODS["best"](), model=network(0), **data)
    seen = []
    again = train(METHODS["best"](), model=network(0), progress=lambda f, w: seen.append(w), **data)
    assert seen == []
    assert same_bits(weights_of(first.model), weights_of(again.model))
    assert outcome_in_words(first) == outcome_in_words(again)


def test_the_seed_alone_decides(network, stripes, weights_of, same_bits):
    def weights(seed, outer):
        torch.manual_seed(outer)
        data = {"train": stripes(40), "validation": stripes(20, 1)}
        return weights_of(train(METHODS["best"](), model=network(0), seed=seed, **data).model)

    assert same_bits(weights(1, 10), weights(1, 11))
    assert not same_bits(weights(1, 10), weights(2, 10))


def test_the_random_state_of_the_caller_is_untouched(network, stripes):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    train(METHODS["best"](), model=network(0), train=stripes(40), validation=stripes(20, 1), seed=0)
    assert torch.equal(torch.rand(4), expected)


class Scripted(erm.Erm):
    """ERM whose validation scores are given."""

    scores = (0.2, 0.6, 0.6, 0.1)

    def validation_score(self, run):
        run.model(run.validation.batch(slice(0, 3)).images)
        return self.scores[run.epoch]


def test_ties_in_selection_go_to_the_earliest_epoch(network, stripes, weights_of, same_bits):
    data = {"train": stripes(40), "validation": stripes(20, 1), "seed": 0}
    params = {"batch_size": 16, "lr": 0.05, "schedule": "constant"}
    chosen = train(Scripted(erm.Params(epochs=4, select="best-validation", **params)), model=network(0), **data)
    second = train(erm.Erm(erm.Params(epochs=2, **params)), model=network(0), **data)
    assert (chosen.selected_epoch, chosen.selected_on) == (2, "validation-robust")
    assert same_bits(weights_of(chosen.model), weights_of(second.model))
    assert [entry["validation_robust_accuracy"] for entry in chosen.history] == list(Scripted.scores)
    assert (second.selected_epoch, second.selected_on) == (2, "last")


def test_clean_validation_accuracy_selects_where_nothing_else_does(network, stripes):
    data = {"train": stripes(40), "validation": stripes(20, 1), "seed": 0}
    params = erm.Params(epochs=5, batch_size=16, lr=0.3, schedule="constant", select="best-validation")
    outcome = train(erm.Erm(params), model=network(0), **data)
    accuracies = [entry["validation_accuracy"] for entry in outcome.history]
    assert outcome.selected_epoch == accuracies.index(max(accuracies)) + 1
    assert outcome.selected_on == "validation"
    predicted = outcome.model.predict(data["validation"].batch(slice(None)).images)
    assert (predicted == data["validation"].labels).double().mean().item() == max(accuracies)


def test_validation_is_counted_apart_from_training(network, stripes):
    data = {"train": stripes(40), "validation": stripes(20, 1), "seed": 0}
    plain = train(erm.Erm(erm.Params(epochs=3, batch_size=16)), model=network(0), **data)
    assert (plain.budget.forward, plain.budget.backward) == (3 * 40, 3 * 40)
    assert (plain.selection_budget.forward, plain.selection_budget.backward) == (3 * 20, 0)
    scored = train(Scripted(erm.Params(epochs=3, batch_size=16)), model=network(0), **data)
    assert scored.budget == plain.budget
    assert scored.selection_budget.forward == plain.selection_budget.forward + 3


class Announcing(erm.Erm):
    """ERM that says what it does before and after, counts the epochs it sees, and spends one pass on each."""

    shares = (0.25, 0.25)

    def prepare(self, run):
        run.progress(0.5, "preparing")
        run.diagnostics["noise"] = torch.rand(1).item()
        run.model(run.train.batch(slice(0, 2)).images)
        self.epochs_seen = torch.zeros(())

    def begin_epoch(self, run):
        self.epochs_seen += 1

    def state(self):
        return {"epochs_seen": self.epochs_seen}

    def load_state(self, state):
        self.epochs_seen = state["epochs_seen"]

    def finish(self, run):
        assert not run.model.training
        with run.selecting():
            run.model(run.validation.batch(slice(0, 5)).images)
        run.progress(0.5, "finishing")
        run.selected_on = "validation of the finish"
        run.diagnostics["epochs"] = int(self.epochs_seen)


def test_progress_only_grows_and_says_what_runs(network, stripes):
    reports = []
    outcome = train(
        Announcing(erm.Params(epochs=2, batch_size=20)),
        model=network(0),
        train=stripes(40),
        validation=stripes(20, 1),
        seed=0,
        progress=lambda fraction, what: reports.append((fraction, what)),
    )
    fractions = [fraction for fraction, _ in reports]
    assert fractions == sorted(fractions)
    assert reports[0] == (0.125, "preparing")
    assert reports[1] == (0.25, "epoch 1/2")
    assert reports[-2] == (0.75, "epoch 2/2")
    assert reports[-1] == (0.875, "finishing")
    assert outcome.diagnostics["epochs"] == 2


@pytest.mark.parametrize("at", [2, 4, 6, 8])
def test_what_a_method_reports_and_spends_survives_a_kill(network, stripes, tmp_path, at):
    data = {"train": stripes(40), "validation": stripes(20, 1), "seed": 0}
    whole = train(Announcing(erm.Params(epochs=2, batch_size=20)), model=network(0), **data)
    assert whole.budget.forward == 2 * 40 + 2
    assert whole.selection_budget.forward == 2 * 20 + 5
    assert whole.selected_on == "validation of the finish"
    method = erm.Params(epochs=2, batch_size=20)
    torch.manual_seed(at)
    with pytest.raises(KilledError):
        train(Announcing(method), model=network(0), scratch=Scratch(tmp_path), progress=Killer(at), **data)
    resumed = train(Announcing(method), model=network(0), scratch=Scratch(tmp_path), **data)
    assert outcome_in_words(resumed) == outcome_in_words(whole)


def test_a_diverging_run_stops_at_its_epoch(network, stripes):
    class Diverging(erm.Erm):
        def loss(self, model, batch):
            return super().loss(model, batch) * (float("nan") if self.broken else 1.0)

        def begin_epoch(self, run):
            self.broken = run.epoch == 1

    with pytest.raises(CellError, match="the loss of epoch 2 is nan"):
        train(Diverging(erm.Params(epochs=3)), model=network(0), train=stripes(), validation=stripes(20, 1), seed=0)


def test_a_damaged_state_is_named_and_left_alone(network, stripes, tmp_path):
    data = {"train": stripes(40), "validation": stripes(20, 1), "seed": 5, "scratch": Scratch(tmp_path)}
    train(METHODS["sgd"](), model=network(0), **data)
    path = tmp_path / "training"
    path.write_bytes(path.read_bytes()[:-10])
    damaged = path.read_bytes()
    with pytest.raises(CorruptRecordError, match="training: the saved state is damaged"):
        train(METHODS["sgd"](), model=network(0), **data)
    assert path.read_bytes() == damaged


def test_a_state_of_another_model_is_named(network, stripes, tmp_path):
    data = {"train": stripes(40), "validation": stripes(20, 1), "seed": 5, "scratch": Scratch(tmp_path)}
    train(METHODS["sgd"](), model=network(0), **data)
    with pytest.raises(CorruptRecordError, match="training: the saved state is of another model"):
        train(METHODS["sgd"](), model=network(0, batch_norm=False), **data)


def test_data_that_does_not_fit_is_refused(network, stripes):
    def attempt(train_n=8, validation_n=8, model=None):
        train(
            METHODS["sgd"](),
            model=model or network(0),
            train=stripes(train_n),
            validation=stripes(validation_n),
            seed=0,
        )

    with pytest.raises(DataError, match="no training examples"):
        attempt(train_n=0)
    with pytest.raises(DataError, match="no validation examples"):
        attempt(validation_n=0)
    model = network(0)
    model.classes = 7
    with pytest.raises(DataError, match="the training data has 4 classes, the model 7"):
        attempt(model=model)


@pytest.mark.parametrize(("n", "batch_size"), [(1, 4), (2, 4), (4, 4), (5, 4), (6, 4), (8, 4), (9, 2), (3, 64)])
def test_steps_are_as_many_as_batches(stripes, n, batch_size):
    batches = list(stripes(n).shuffled(batch_size, seed=0, epoch=0))
    assert steps_per_epoch(n, batch_size) == len(batches)


def test_examples_of_all_domains_are_mixed(network, stripes):
    seen = []

    class Watching(erm.Erm):
        def loss(self, model, batch):
            seen.append(batch.domains)
            return super().loss(model, batch)

    data = stripes(60, domains=("sketch", "photo"))
    train(
        Watching(erm.Params(epochs=1, batch_size=30)), model=network(0), train=data, validation=stripes(20, 1), seed=0
    )
    assert all(0 < domains.double().mean() < 1 for domains in seen)
    assert torch.equal(torch.cat(seen).bincount(), torch.tensor([30, 30]))


def test_a_run_counted_in_iterations_validates_every_so_many_and_stops_exactly(network, stripes):
    method = erm.Erm(erm.Params(iterations=11, evaluate_every=4, batch_size=16, lr=0.05))
    outcome = train(method, model=network(0), train=stripes(40), validation=stripes(20, 1), seed=0)
    assert [entry["step"] for entry in outcome.history] == [4.0, 8.0, 11.0]
    assert outcome.budget.forward == outcome.budget.backward == 11 * 16


def test_frozen_batch_norm_keeps_its_statistics_and_trains_its_scale(network, stripes):
    model = network(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    method = erm.Erm(erm.Params(epochs=1, batch_size=16, lr=0.1, batch_norm="frozen"))
    after = train(method, model=model, train=stripes(40), validation=stripes(20, 1), seed=0).model.state_dict()
    statistics = [name for name in before if "running" in name or "num_batches" in name]
    assert statistics and all(torch.equal(before[name], after[name]) for name in statistics)
    scales = [name.replace("running_mean", "weight") for name in statistics if name.endswith("running_mean")]
    assert all(not torch.equal(before[name], after[name]) for name in scales)


def test_batches_that_do_not_divide_among_the_domains_are_refused(network, stripes):
    data = stripes(40, 0, ("plain", "fancy"))
    method = erm.Erm(erm.Params(iterations=2, batch_size=7))
    with pytest.raises(UsageError, match="does not divide among 2 training domains"):
        train(method, model=network(0), train=data, validation=data, seed=0)


def test_drop_last_leaves_out_what_does_not_fill_a_batch(network, stripes):
    method = erm.Erm(erm.Params(epochs=2, batch_size=16, lr=0.05, drop_last=True))
    outcome = train(method, model=network(0), train=stripes(40), validation=stripes(20, 1), seed=0)
    assert outcome.budget.forward == 2 * 32


def test_drop_last_keeps_the_only_batch(network, stripes):
    method = erm.Erm(erm.Params(epochs=1, batch_size=64, lr=0.05, drop_last=True))
    outcome = train(method, model=network(0), train=stripes(40), validation=stripes(20, 1), seed=0)
    assert outcome.budget.forward == 40
