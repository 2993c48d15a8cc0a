from __future__ import annotations

import torch

from robusteval.methods.batch_norm import batch_norms, freeze_batch_norm, running_statistics_kept


def test_running_statistics_do_not_change_inside_but_batch_statistics_normalise(network):
    model = network(0).train()
    images = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    (layer,) = batch_norms(model)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with running_statistics_kept(model):
        inside = model(images)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    assert torch.equal(inside, model(images))
    assert int(layer.num_batches_tracked) == 1


def test_frozen_layers_use_and_keep_their_running_statistics(network):
    model = network(0).train()
    freeze_batch_norm(model)
    images = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    frozen = model(images)
    (layer,) = batch_norms(model)
    assert int(layer.num_batches_tracked) == 0
    assert torch.equal(frozen, model.eval()(images))
