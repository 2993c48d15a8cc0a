from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import robusteval
from robusteval.api.canaries import InputContractError
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import CellError, UsageError
from robusteval.scoring.sides import MismatchError


@pytest.fixture(scope="module")
def found(network, gate, tmp_path_factory):
    return robusteval.evaluate(network, gate, store=tmp_path_factory.mktemp("store"), device="cpu")


def test_a_plain_module_gets_all_four_accuracies(found):
    (row,) = found.scores.rows
    assert row.method == "Sequential"
    assert (row.a_id.n, row.r_id.n, row.a_ood.n, row.r_ood.n) == (150, 40, 40, 10)
    assert row.a_id.value > 0.8 > row.r_id.value
    assert "| Sequential |" in found.table()
    assert found.to_pandas().loc["Sequential", "a_id"] == row.a_id.value
    assert not row.missing


def test_results_can_be_drawn(found, tmp_path):
    assert found.plot(tmp_path / "scatter.svg", x="a_id", y="r_id").read_text().startswith("<?xml")


def test_the_same_model_is_measured_once_and_a_changed_one_again(network, gate, found):
    again = robusteval.evaluate(network, gate, store=found.store.local, seeds=None, only_stored=True, device="cpu")
    assert set(again.records) == set(found.records)
    changed = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    changed.load_state_dict(network.state_dict())
    with torch.no_grad():
        changed[1].bias[0] += 1e-3
    with pytest.raises(UsageError, match="has no stored result"):
        robusteval.evaluate(changed, gate, store=found.store.local, only_stored=True, device="cpu")


def test_a_model_is_left_as_it_was(network, gate):
    training = nn.Sequential(network, nn.BatchNorm1d(10)).train()
    before = {name: tensor.clone() for name, tensor in training.state_dict().items()}
    robusteval.evaluate(training, gate, n=20, cells=["a_id"], check_input=False)
    assert training.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.state_dict().items())


def test_code_that_the_classes_call_makes_another_model(network, gate, tmp_path):
    factor = [1.0]

    class Calling(nn.Module):
        def forward(self, images):
            return network(images) * factor[0]

    first = robusteval.evaluate(Calling(), gate, n=20, cells=["a_id"], store=tmp_path)
    factor[0] = -1.0
    second = robusteval.evaluate(Calling(), gate, n=20, cells=["a_id"], store=tmp_path, check_input=False)
    assert set(first.records) != set(second.records)


def test_a_function_on_arrays_is_measured_where_no_gradient_is_needed(network, gate):
    weight, bias = (part.detach().numpy() for part in network[1].parameters())

    def linear(images):
        assert isinstance(images, np.ndarray)
        return images.reshape(len(images), -1) @ weight.T + bias

    found = robusteval.evaluate(linear, gate, cells=["a_id", "a_ood"])
    same = robusteval.evaluate(network, gate, cells=["a_id", "a_ood"])
    assert found.scores.rows[0].a_id.value == same.scores.rows[0].a_id.value
    with pytest.raises(UsageError, match="'fgsm' needs gradients, which a function on arrays has not"):
        robusteval.evaluate(linear, gate)


@pytest.mark.parametrize(
    ("scale", "shift", "declared", "advice"),
    [
        (255.0, 0.0, {}, r"value_range=\(0, 255\)"),
        (1.0, 0.0, {"mean": [0.9] * 3, "std": [0.05] * 3}, "leave mean, std and value_range out"),
        (20.0, -18.0, {}, None),
    ],
)
def test_the_wrong_preprocessing_is_noticed(network, gate, scale, shift, declared, advice):
    class Trained(nn.Module):
        """Wants pixels that are scaled and shifted."""

        def forward(self, given):
            return network((given - shift) / scale)

    trained = Trained()
    if advice is not None:
        with pytest.raises(InputContractError, match=advice):
            robusteval.evaluate(trained, gate, cells=["a_id"], **declared)
    right = {"value_range": (shift, shift + scale)}
    assert robusteval.evaluate(trained, gate, cells=["a_id"], **right).scores.rows[0].a_id.value > 0.8


def test_declared_statistics_are_in_the_units_of_the_range(network, gate):
    doubled = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    doubled[1].weight.data = network[1].weight.data * 2 / 255
    doubled[1].bias.data = network[1].bias.data + network[1].weight.data.sum(1) * (10 / 255)
    declared = {"mean": [10.0] * 3, "std": [2.0] * 3, "value_range": (0.0, 255.0)}
    # The network gets (255 x - 10) / 2.
    found = robusteval.evaluate(doubled, gate, cells=["a_id"], **declared)
    same = robusteval.evaluate(network, gate, cells=["a_id"])
    assert found.scores.rows[0].a_id.value == same.scores.rows[0].a_id.value


def test_a_classifier_knows_its_own_preprocessing(network, gate):
    own = Classifier(network, classes=10, input_shape=(3, 16, 16), mean=[0.0] * 3, std=[1.0] * 3)
    assert robusteval.evaluate(own, gate, cells=["a_id"], n=30).scores.rows[0].a_id.n == 30
    with pytest.raises(UsageError, match="normalises by itself"):
        robusteval.evaluate(own, gate, cells=["a_id"], mean=[0.5] * 3, std=[0.5] * 3)


class Failing(nn.Module):
    """Fails as soon as it sees an image that is brighter than the others."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        if float(images.mean(dim=(1, 2, 3)).max()) > 0.25:
            raise ZeroDivisionError("no bright images")
        return self.network(images)


def test_what_the_model_raises_comes_with_its_traceback_and_the_examples(network, gate):
    class Dim(Failing):
        pass

    with pytest.raises(ZeroDivisionError, match="no bright images") as error:
        robusteval.evaluate(Dim(network), gate, cells=["a_id"], check_input=False)
    assert any(frame.name == "forward" for frame in error.traceback)
    (note,) = error.value.__notes__
    assert "clean on upright, on the examples " in note
    assert "upright" in note.partition("on the examples ")[2] or "/" in note


@pytest.mark.parametrize(("cell", "evaluator"), [("a_id", "clean"), ("r_id", "adversarial")])
def test_what_the_model_raises_while_it_is_measured_comes_as_it_raised_it(network, gate, cell, evaluator):
    class Few(Failing):
        def forward(self, images):
            if len(images) > 16:
                raise ZeroDivisionError("too many images")
            return self.network(images)

    with pytest.raises(ZeroDivisionError, match="too many images") as error:
        robusteval.evaluate(Few(network), gate, cells=[cell], check_input=False)
    assert f"{evaluator} on upright, on images made from the examples upright/" in error.value.__notes__[0]
    assert any(frame.name == "forward" for frame in error.traceback)


class Spoilt(nn.Module):
    """A network with something done to its answers."""

    def __init__(self, network, spoil):
        super().__init__()
        self.network, self.spoil, self.calls = network, spoil, 0

    def forward(self, images):
        self.calls += 1
        return self.spoil(self.network(images), self.calls)


@pytest.mark.parametrize("cell", ["a_id", "r_id"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda logits, calls: logits.long(), r"returned torch\.int64; return logits as floating point"),
        (lambda logits, calls: logits * (1 + calls % 2), r"asked again about example upright/\d+.* it remembers"),
        (lambda logits, calls: logits.roll(calls, dims=1), r"asked again about example upright/\d+.* it remembers"),
    ],
)
def test_a_model_whose_answers_are_no_logits_of_the_image_is_refused(network, gate, cell, spoil, words):
    with pytest.raises(CellError, match=words) as error:
        robusteval.evaluate(Spoilt(network, spoil), gate, cells=[cell], check_input=False)
    assert "on upright" in error.value.__notes__[0]


def test_infinite_logits_are_flagged_and_cannot_be_attacked(network, gate):
    model = Spoilt(network, lambda logits, calls: logits.masked_fill(logits > 4, float("inf")))
    found = robusteval.evaluate(model, gate, cells=["a_id"], check_input=False)
    (record,) = found.records.values()
    assert [flag.code for flag in record.evaluation.flags] == ["nan-logits"]
    with pytest.raises(CellError, match=r"answered with infinite logits on example upright/\d+"):
        robusteval.evaluate(model, gate, cells=["r_id"], check_input=False)


def test_a_model_with_other_classes_is_refused(gate):
    with pytest.raises(CellError, match="check its number of classes"):
        robusteval.evaluate(nn.Sequential(nn.Flatten(), nn.Linear(768, 7)), gate)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (3, {}, "int is no model"),
        ("gone.safetensors", {}, "gone.safetensors: cannot be read"),
        (nn.Linear(3, 2, device="meta"), {}, "no weights, its weight is on the meta device; load weights first"),
        (nn.LazyLinear(10), {}, "weight has no shape yet; show it one batch"),
        (nn.Identity(), {"mean": [0.1, 0.2]}, "mean has 2 numbers, the images have 3 channels"),
        (nn.Identity(), {"std": [0.0] * 3}, "every number must be positive"),
        (nn.Identity(), {"value_range": (1, 0)}, "the second number must be larger"),
        (nn.Flatten, {}, "Flatten is a class; give a network of it, such as Flatten()"),
        (nn.Identity(), {"n": 0}, "measure a whole number of examples a domain"),
        (nn.Identity(), {"n": 2.5}, "n = 2.5: measure a whole number"),
        (nn.Identity(), {"limit": 3}, "unexpected keyword argument 'limit'"),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 10)), {"cells": ["r_od"]}, "has no cell r_od; it has a_id"),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 10)), {"cells": ["a_id", "r_od"]}, "has no cell r_od; it has"),
    ],
)
def test_what_makes_no_sense_is_said(model, options, words, gate):
    with pytest.raises(UsageError, match=words):
        robusteval.evaluate(model, gate, **options)


def test_two_models_are_compared_on_the_same_examples(network, gate, found):
    worse = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    worse.load_state_dict({name: tensor * 0.0 for name, tensor in network.state_dict().items()} | {
        "1.bias": torch.arange(10.0)
    })  # fmt: skip
    comparison = robusteval.compare(found, worse, suite=gate, check_input=False, cells=["a_id"])
    assert comparison.verdict == "regressed"
    assert comparison.cells[0].losses > 80
    with pytest.raises(MismatchError, match=r"data.n 150 -> 20"):
        robusteval.compare(found, network, suite=gate, n=20, cells=["a_id"])


def test_attack_seeds_are_repetitions(network, gate, tmp_path):
    found = robusteval.evaluate(network, gate, n=10, cells=["r_id"], seeds=(1, 2), store=tmp_path)
    assert [row.seed for row in found.plan.rows] == [1, 2]
    assert {record.cell.seed for record in found.records.values()} == {1, 2}
    comparison = robusteval.compare(found, found, unit="attack_seeds")
    assert comparison.cells[0].seeds == (2, 2)
