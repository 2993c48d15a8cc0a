from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from robusteval.methods import sam, udim
from robusteval.methods.base import TrainingRun
from robusteval.methods.classifier_gradients import ClassifierGradients
from robusteval.methods.optimizers import build_optimizer
from robusteval.methods.resolve import resolve_method
from robusteval.methods.trainer import train
from robusteval.models.heads import features_and_logits
from robusteval.schema.errors import UsageError
from robusteval.store.scratch import Scratch


class KilledError(Exception):
    """Ends a run from its progress callback."""


def settings(**changes):
    return udim.Params(**{"epochs": 5, "batch_size": 16, "lr": 0.01, "optimizer": "sgd", "warmup": 0.4, **changes})


def second_phase(params, model, data, method_class=udim.Udim):
    """One step of phase 2 with plain SGD of rate 1; returns the run."""
    method = method_class(params)
    run = TrainingRun(model=model, train=data, validation=data, seed=0, iteration=5, total_iterations=10)
    method.prepare(run)
    run.optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    method.set_mode(model)
    torch.manual_seed(0)
    method.step(run, data.batch(slice(0, 16)))
    return run


def with_dropout(model):
    model.network.insert(6, nn.Dropout(0.5))
    return model


def test_without_radius_and_penalty_the_gradient_is_that_of_erm(network, stripes):
    model, twin = network(0), network(0).train()
    data = stripes()
    second_phase(settings(rho=0.0, weight=0.0), model, data)
    batch = data.batch(slice(0, 16))
    grads = torch.autograd.grad(cross_entropy(twin(batch.images), batch.labels), list(twin.parameters()))
    for ours, parameter, grad in zip(model.parameters(), twin.parameters(), grads, strict=True):
        assert torch.equal(ours, parameter - grad)


def test_without_penalty_a_step_is_one_of_sam_bit_for_bit(network, stripes, weights_of, same_bits):
    data = stripes()
    ours = second_phase(settings(rho=0.1, weight=0.0), with_dropout(network(0)), data)
    theirs = second_phase(sam.Params(rho=0.1), with_dropout(network(0)), data, method_class=sam.Sam)
    assert same_bits(weights_of(ours.model), weights_of(theirs.model))


def test_running_statistics_see_the_clean_images_once(network, stripes):
    run = second_phase(settings(), network(0), stripes())
    assert int(run.model.network[1].num_batches_tracked) == 1


def test_frozen_batch_norm_sees_nothing(network, stripes):
    model = network(0)
    before = model.network[1].running_mean.clone()
    second_phase(settings(batch_norm="frozen"), model, stripes())
    assert torch.equal(model.network[1].running_mean, before)


def test_passes_are_counted_as_estimated(network, stripes):
    run = second_phase(settings(), network(0), stripes())
    assert (run.model.passes.forward, run.model.passes.backward) == (4 * 16, 5 * 16)
    assert udim.Udim.passes(settings()) == pytest.approx((2 * 0.4 + 4 * 0.6, 2 * 0.4 + 5 * 0.6))


@pytest.mark.parametrize("training", [True, False])
def test_without_displacement_only_the_norms_are_penalised(network, stripes, training):
    model, data = network(0).train(training), stripes()
    batch = data.batch(slice(0, 16))
    method = udim.Udim(settings())
    seen = method.penalty(model, batch, batch.images.clone(), domains=1)
    features, logits = features_and_logits(model, torch.cat([batch.images, batch.images]))
    gradients = ClassifierGradients.of(logits[16:], batch.labels, features[16:])
    norms = gradients.mean_squared_norms(torch.full((16,), 1 / 16))
    assert (seen - norms).abs() < 1e-9


@pytest.mark.parametrize("norm", ["sample", "batch"])
def test_the_moved_images_have_a_larger_objective(network, stripes, norm):
    model, data = network(0).train(), stripes()
    batch = data.batch(slice(0, 16))
    weights = list(model.parameters())
    params = settings(eta=0.01, norm=norm, rho=0.1)

    def objective(images):
        loss = cross_entropy(model(images), batch.labels)
        grads = torch.autograd.grad(loss, weights)
        return loss.item() + params.rho * sum(grad.square().sum().item() for grad in grads) ** 0.5

    moved, gradients, _ = udim.unknown_domain(model, batch, weights, params)
    assert objective(moved) > objective(batch.images)
    assert not moved.requires_grad
    assert all(not gradient.requires_grad for gradient in gradients)
    expected = torch.autograd.grad(cross_entropy(model(batch.images), batch.labels), weights)
    assert all(torch.allclose(ours, theirs, atol=1e-7) for ours, theirs in zip(gradients, expected, strict=True))


def test_displacements_have_the_stated_size():
    ascent = torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 1e-4
    sample = udim.displacement(ascent, norm="sample", eta=1.44)
    assert sample.square().mean(dim=(1, 2, 3)).sqrt().tolist() == pytest.approx([1.44] * 48, rel=1e-4)
    batch = udim.displacement(ascent, norm="batch", eta=10.0)
    # The released factor 10 in batches of 48 is where the default of 1.44 comes from.
    assert batch.square().mean(dim=0).sqrt().flatten().tolist() == pytest.approx([10 / 48**0.5] * 192, rel=1e-4)


def test_one_images_displacement_does_not_depend_on_its_neighbours():
    ascent = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    changed = ascent.clone()
    changed[1:] *= 3
    same = [
        torch.equal(udim.displacement(a, norm=norm, eta=1.0)[0], udim.displacement(b, norm=norm, eta=1.0)[0])
        for norm in ("sample", "batch")
        for a, b in [(ascent, changed)]
    ]
    assert same == [True, False]


def test_a_saturated_loss_gives_no_nan(network, stripes):
    model, data = network(0).eval(), stripes()
    batch = data.batch(slice(0, 16))
    with torch.no_grad():
        model.network[-1].weight.zero_()
        model.network[-1].bias.copy_(torch.tensor([200.0, 0.0, 0.0, 0.0]))
    batch = replace(batch, labels=torch.zeros_like(batch.labels))
    moved, _, _ = udim.unknown_domain(model, batch, list(model.parameters()), settings())
    assert torch.isfinite(moved).all()


def test_domains_are_penalised_separately_unless_told_not_to(network, stripes):
    data = stripes(16, domains=("photo", "sketch"))
    joint, apart = (
        second_phase(settings(per_domain=split, weight=1.0), network(0), data).model for split in (False, True)
    )
    assert not torch.equal(joint.network[-1].weight, apart.network[-1].weight)
    single = stripes()
    joint, apart = (second_phase(settings(per_domain=split), network(0), single).model for split in (False, True))
    assert torch.allclose(joint.network[-1].weight, apart.network[-1].weight, atol=1e-6)


def test_the_warm_up_is_sam_bit_for_bit(network, stripes, weights_of, same_bits):
    shared = {"epochs": 2, "batch_size": 16, "lr": 0.01, "schedule": "constant", "optimizer": "adam"}
    shared["weight_decay"] = 0.0
    data = {"train": stripes(), "validation": stripes(20, 1), "seed": 4}
    ours = train(udim.Udim(udim.Params(warmup=1.0, **shared)), model=network(0), **data)
    theirs = train(sam.Sam(sam.Params(**shared)), model=network(0), **data)
    assert same_bits(weights_of(ours.model), weights_of(theirs.model))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_phase_two_starts_from_the_best_warm_up_epoch_with_its_optimiser(network, stripes, weights_of, optimizer):
    method = udim.Udim(settings(optimizer=optimizer, lr=1e-12))
    run = TrainingRun(model=network(0), train=stripes(), validation=stripes(40, 1), seed=0, total_iterations=10)
    method.prepare(run)
    run.optimizer = build_optimizer(method.params, method.parameters(run))
    method.set_mode(run.model)
    good = weights_of(run.model)
    batch = run.train.batch(slice(0, 16))
    for run.iteration in range(1, 4):
        method.begin_epoch(run)
        method.step(run, batch)
        if run.iteration == 1:
            continue
        with torch.no_grad():  # from the second epoch on everything is classified as one class
            run.model.network[-1].weight.zero_()
    run.iteration = 4
    method.step(run, batch)
    assert torch.allclose(run.model.network[-1].weight, good["network.6.weight"], atol=1e-6)
    assert run.diagnostics["warmup_validation_accuracy"] > 0.25
    assert run.selection.forward > 0


def test_a_killed_run_resumes_to_the_same_weights_in_both_phases(network, stripes, tmp_path, weights_of, same_bits):
    data = {"train": stripes(), "validation": stripes(20, 1), "seed": 3}
    params = settings(optimizer="adam", epochs=6, warmup=0.5)
    whole = train(udim.Udim(params), model=network(0), **data)
    for epoch in (3, 5):

        def kill(fraction, what, epoch=epoch):
            if what.startswith(f"epoch {epoch}/") and fraction >= (epoch - 0.5) / 6:
                raise KilledError

        scratch = Scratch(tmp_path / str(epoch))
        with pytest.raises(KilledError):
            train(udim.Udim(params), model=network(0), scratch=scratch, progress=kill, **data)
        again = train(udim.Udim(params), model=network(0), scratch=scratch, **data)
        assert same_bits(weights_of(whole.model), weights_of(again.model))
        assert whole.budget == again.budget
        assert whole.selection_budget == again.selection_budget
        assert whole.diagnostics == again.diagnostics


def test_in_place_activations_are_off_during_training_and_back_afterwards(network, stripes):
    model = network(0)
    model.network[2].inplace = True
    seen = []

    def watch(fraction, what):
        seen.append(model.network[2].inplace)

    params = settings(epochs=1, warmup=0.0)
    train(udim.Udim(params), model=model, train=stripes(), validation=stripes(20, 1), seed=0, progress=watch)
    assert seen
    assert not any(seen)
    assert model.network[2].inplace


def test_an_operation_without_second_derivative_is_named(network, stripes):
    model = network(0)
    model.network[2] = nn.Hardsigmoid()
    with pytest.raises(UsageError, match=r"udim differentiates the network twice.*hardsigmoid"):
        second_phase(settings(), model, stripes())


def test_half_precision_is_refused():
    with pytest.raises(UsageError, match="precision"):
        resolve_method("udim", {"precision": "bfloat16"})
