from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from robusteval.methods import aft, erm, pgd_at
from robusteval.methods.trainer import train


class SameCurve(erm.Erm):
    """Plain fine-tuning under the learning rates of adversarial fine-tuning."""

    def __init__(self, params, curve):
        super().__init__(params)
        self.curve = curve

    def learning_rate(self, fraction):
        return self.curve.learning_rate(fraction)


def test_with_radius_zero_it_is_plain_fine_tuning_under_the_same_schedule(network, stripes, weights_of, same_bits):
    data = {"train": stripes(), "validation": stripes(20, 1), "seed": 4}
    shared = {"epochs": 3, "batch_size": 16, "lr": 0.05}
    method = aft.AdversarialFineTuning(aft.Params(epsilon=0, steps=2, **shared))
    tuned = train(method, model=network(0, batch_norm=False), **data)
    plain = train(SameCurve(erm.Params(**shared), method), model=network(0, batch_norm=False), **data)
    assert same_bits(weights_of(tuned.model), weights_of(plain.model))
    assert [entry["lr"] for entry in tuned.history] == [method.learning_rate(k / 3) for k in (1, 2, 3)]


def test_without_rise_and_decay_it_is_adversarial_training_at_a_constant_rate(network, stripes, weights_of, same_bits):
    data = {"train": stripes(48), "validation": stripes(20, 1), "seed": 4}
    shared = {"epochs": 2, "batch_size": 16, "lr": 0.05, "steps": 2}
    tuned = train(aft.AdversarialFineTuning(aft.Params(p=1 / 6, kappa=0.0, **shared)), model=network(0), **data)
    constant = train(pgd_at.PgdTraining(pgd_at.Params(schedule="constant", **shared)), model=network(0), **data)
    assert same_bits(weights_of(tuned.model), weights_of(constant.model))


def test_a_control_uses_its_plain_schedule(network, stripes, weights_of, same_bits):
    data = {"train": stripes(48), "validation": stripes(20, 1), "seed": 4}
    shared = {"epochs": 4, "batch_size": 16, "lr": 0.05, "steps": 1, "schedule": "piecewise"}
    control = train(aft.AdversarialFineTuning(aft.Params(**shared)), model=network(0), **data)
    same = train(pgd_at.PgdTraining(pgd_at.Params(**shared)), model=network(0), **data)
    assert same_bits(weights_of(control.model), weights_of(same.model))
    assert [entry["lr"] for entry in control.history] == pytest.approx([0.05, 0.05, 0.005, 0.0005])


def test_the_default_curve_peaks_at_lr_and_ends_a_thousand_times_lower():
    params = aft.Params()
    method = aft.AdversarialFineTuning(params)
    assert method.learning_rate(params.p) == params.lr
    assert method.learning_rate(1.0) == pytest.approx(params.lr / 1000.0)
    assert method.learning_rate(1e-9) == pytest.approx(params.lr_min)


@pytest.mark.parametrize(("batch_norm", "drifts"), [("train", True), ("frozen", False)])
def test_running_statistics_drift_unless_frozen(network, stripes, batch_norm, drifts):
    model = network(0)
    before = model.network[1].running_mean.clone()
    params = aft.Params(epochs=1, batch_size=20, steps=1, batch_norm=batch_norm)
    train(aft.AdversarialFineTuning(params), model=model, train=stripes(), validation=stripes(20, 1), seed=0)
    assert torch.equal(model.network[1].running_mean, before) is not drifts
    assert (int(model.network[1].num_batches_tracked) > 0) is drifts


def test_it_makes_a_natural_model_robust_within_few_epochs(network, stripes):
    data = {"train": stripes(160), "validation": stripes(100, 1), "seed": 0}
    natural = train(erm.Erm(erm.Params(epochs=6, batch_size=32, lr=0.05)), model=network(0), **data)
    params = aft.Params(epochs=3, batch_size=32, lr=0.05, epsilon="0.15", step_size="0.05", steps=4)
    method = aft.AdversarialFineTuning(params)
    untouched = train(
        aft.AdversarialFineTuning(
            params.model_copy(update={"epochs": 1, "lr": 1e-9, "lr_min": 1e-9, "batch_norm": "frozen"})
        ),
        model=natural.model,
        **data,
    )
    tuned = train(method, model=natural.model, **data)
    gain = tuned.history[-1]["validation_robust_accuracy"] - untouched.history[-1]["validation_robust_accuracy"]
    assert gain > 0.15


def test_it_needs_a_start_and_a_curve_that_can_rise():
    assert aft.AdversarialFineTuning.start == "required"
    with pytest.raises(ValidationError, match="above the peak"):
        aft.Params(lr=0.01, lr_min=0.02)
    with pytest.raises(ValidationError):
        aft.Params(p=0.0)
