from __future__ import annotations

import pytest
import torch
from torch import nn

from robusteval.methods import advstyle
from robusteval.methods.base import TrainingRun
from robusteval.methods.optimizers import build_optimizer
from robusteval.methods.trainer import train
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import UsageError
from robusteval.store.scratch import Scratch


class KilledError(Exception):
    """Ends a run from its progress callback."""


def build_run(model, data, method, iteration=0):
    run = TrainingRun(model=model, train=data, validation=data, seed=0, iteration=iteration)
    method.prepare(run)
    run.optimizer = build_optimizer(method.params, method.parameters(run))
    return run


def settings(**changes):
    return advstyle.Params(**{"epochs": 2, "batch_size": 16, "lr": 0.02, "after": ("0", "3"), **changes})


def test_nothing_of_the_layers_remains_in_the_model(network, stripes):
    model = network(0)
    names, images = list(model.state_dict()), stripes().batch(slice(None)).images
    outcome = train(advstyle.AdvStyle(settings()), model=model, train=stripes(), validation=stripes(20, 1), seed=0)
    assert list(outcome.model.state_dict()) == names
    assert not any(module._forward_hooks for module in model.modules())
    model.train()
    first = model(images)
    assert torch.equal(model(images), first)
    assert set(outcome.diagnostics["style_scales"]) == {"0", "3"}


def test_evaluation_is_untouched_while_the_layers_are_in(network, stripes):
    images = stripes().batch(slice(None)).images
    model, plain = network(0), network(0)
    build_run(model, stripes(), advstyle.AdvStyle(settings()))
    assert torch.equal(model.eval()(images), plain.eval()(images))
    model.train()
    plain.train()
    styled = [not torch.equal(model(images), plain(images)) for _ in range(10)]
    assert any(styled)


@pytest.mark.parametrize(("faithful", "decay"), [(False, 0.0), (True, 5e-4)])
def test_the_optimiser_holds_the_scales_and_decays_them_only_if_faithful(network, stripes, faithful, decay):
    method = advstyle.AdvStyle(settings(faithful=faithful))
    run = build_run(network(0), stripes(), method)
    groups = run.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [5e-4, decay]
    assert [id(tensor) for tensor in groups[1]["params"]] == [id(scale) for scale in method.scales]
    assert not {id(scale) for scale in method.scales} & {id(parameter) for parameter in run.model.parameters()}


def test_scales_move_in_training_and_not_at_all_with_weight_zero(network, stripes):
    for weight in (10.0, 0.0):
        method = advstyle.AdvStyle(settings(adv_weight=weight))
        run = build_run(network(0), stripes(), method)
        run.model.train()
        before = None
        for run.iteration in range(12):
            method.step(run, stripes().batch(slice(None)))
            if before is None and all(layer.initialised for layer in method.layers.values()):
                before = [scale.detach().clone() for scale in method.scales]
        moved = [not torch.equal(scale, old) for scale, old in zip(method.scales, before, strict=True)]
        assert moved == [weight > 0] * 4


def test_dsu_learns_no_scales(network, stripes):
    method = advstyle.AdvStyle(settings(variant="dsu"))
    run = build_run(network(0), stripes(), method)
    assert len(run.optimizer.param_groups) == 1


def test_separate_ascent_counts_four_batches_and_keeps_scales_from_the_optimiser(network, stripes):
    method = advstyle.AdvStyle(settings(ascent="separate"))
    run = build_run(network(0), stripes(), method)
    assert len(run.optimizer.param_groups) == 1
    run.model.train()
    method.step(run, stripes().batch(slice(None)))
    assert int(run.model.network[1].num_batches_tracked) == 4
    assert advstyle.AdvStyle.passes(method.params) == (4.0, 4.0)


def test_noise_depends_on_seed_and_iteration_alone(network, stripes, weights_of, same_bits):
    found = []
    for disturb in (0, 1):
        method = advstyle.AdvStyle(settings())
        run = build_run(network(0), stripes(), method, iteration=7)
        torch.manual_seed(disturb)
        run.model.train()
        method.step(run, stripes().batch(slice(None)))
        found.append(weights_of(run.model))
    assert same_bits(*found)


def test_a_killed_run_resumes_to_the_same_weights(network, stripes, tmp_path, weights_of, same_bits):
    data = {"train": stripes(), "validation": stripes(20, 1), "seed": 3}
    params = settings(epochs=4, momentum=0.9)
    whole = train(advstyle.AdvStyle(params), model=network(0), **data)

    def kill(fraction, what):
        if what.startswith("epoch 3") and fraction > 0.6:
            raise KilledError

    scratch = Scratch(tmp_path)
    with pytest.raises(KilledError):
        train(advstyle.AdvStyle(params), model=network(0), scratch=scratch, progress=kill, **data)
    again = train(advstyle.AdvStyle(params), model=network(0), scratch=scratch, **data)
    assert same_bits(weights_of(whole.model), weights_of(again.model))
    assert whole.diagnostics == again.diagnostics
    assert whole.budget == again.budget


class Staged(nn.Module):
    """Stem, pool and two stages, as timm names them."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.maxpool = nn.MaxPool2d(2)
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU())
        self.act = nn.ReLU()
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        x = self.act(self.maxpool(self.conv1(x)))
        return self.fc(self.act(self.layer2(self.layer1(x))).mean(dim=(2, 3)))


def wrap(network):
    return Classifier(network, classes=2, input_shape=(3, 8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)


def test_default_positions_are_stem_pool_and_stages():
    model = wrap(Staged())
    shapes = advstyle.feature_maps(model)
    assert advstyle.default_positions(model.network, shapes) == ("conv1", "maxpool", "layer1", "layer2")
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    wrapped = nn.Sequential(features, nn.Flatten(), nn.Linear(64, 2))
    model = wrap(wrapped)
    assert advstyle.default_positions(wrapped, advstyle.feature_maps(model)) == ("0.0", "0.2")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layer3", r"unknown module 'layer3'; did you mean 'layer[12]'"),
        ("act", "runs 2 times per pass"),
        ("fc", "not maps"),
    ],
)
def test_unusable_positions_are_named(stripes, name, message):
    method = advstyle.AdvStyle(settings(after=(name,)))
    with pytest.raises(UsageError, match=message):
        build_run(wrap(Staged()), stripes(), method)


def test_looking_for_positions_changes_nothing(network, weights_of, same_bits):
    model = network(0).train()
    before = weights_of(model)
    advstyle.feature_maps(model)
    assert same_bits(before, weights_of(model))
    assert model.training
    assert model.passes.forward == 0
