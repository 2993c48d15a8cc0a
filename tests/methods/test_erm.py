from __future__ import annotations

import math

import pytest
import torch

from robusteval.methods.erm import Erm, Params
from robusteval.methods.trainer import train
from robusteval.methods.validation import clean_accuracy


def test_the_loss_of_an_untrained_model_is_the_logarithm_of_the_number_of_classes(network, stripes):
    losses = [Erm(Params()).loss(network(seed).train(), stripes(64).batch(slice(None))).item() for seed in range(5)]
    assert sum(losses) / len(losses) == pytest.approx(math.log(4), rel=0.1)


def test_it_overfits_64_examples(network, stripes):
    data = stripes(64)
    outcome = train(
        Erm(Params(epochs=12, batch_size=16, lr=0.05, weight_decay=0.0)),
        model=network(0),
        train=data,
        validation=data,
        seed=0,
    )
    assert outcome.history[-1]["validation_accuracy"] == 1.0
    assert outcome.history[-1]["loss"] < 0.05


def test_accuracy_in_evaluation_mode_does_not_depend_on_the_batch(network, stripes):
    data = stripes(33)
    model = network(3).eval()
    predicted = model.predict(data.batch(slice(None)).images)
    for size in (1, 7):
        parts = [model.predict(batch.images) for batch in data.in_order(size)]
        assert torch.equal(torch.cat(parts), predicted)
    accuracy = (predicted == data.labels).double().mean().item()
    assert clean_accuracy(model, data) == pytest.approx(accuracy)


def test_training_in_bfloat16_runs_the_network_in_bfloat16_and_keeps_float32_weights(network, stripes):
    seen = []
    model = network(0)
    model.network[0].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    method = Erm(Params(epochs=1, precision="bfloat16"))
    loss = method.loss(model.train(), stripes().batch(slice(None)))
    assert seen == [torch.bfloat16]
    assert loss.dtype == torch.float32
    train(method, model=model, train=stripes(), validation=stripes(20, 1), seed=0)
    assert all(p.dtype == torch.float32 for p in model.parameters())
