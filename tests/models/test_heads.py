from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robusteval.models.classifier import Classifier
from robusteval.models.heads import features, features_and_logits, find_head
from robusteval.schema.errors import UsageError


def _model(network: nn.Module) -> Classifier:
    return Classifier(network, classes=3, input_shape=(1, 4, 4), mean=(0.0,), std=(1.0,))


class _Named(nn.Module):
    """Registers its head before another layer of the same size, as a network with auxiliary outputs may."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 3)
        self.auxiliary = nn.Linear(16, 3)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.flatten(1))
        return logits


def test_the_last_layer_with_one_output_a_class_is_the_head() -> None:
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 3), nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.Dropout())
    )
    assert find_head(network, 3) == ("3.0", network[3][0])


def test_a_network_that_names_its_classifier_is_believed() -> None:
    network = _Named()
    assert find_head(network, 3) == ("head", network.head)


def test_a_network_without_a_linear_head_is_named() -> None:
    with pytest.raises(UsageError, match="Sequential has no linear layer with 3 outputs"):
        find_head(nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten(), nn.Linear(3, 5)), 3)


def test_features_carry_gradients_to_the_images_and_cost_one_pass() -> None:
    model = _model(nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3))).eval()
    images = torch.rand(2, 1, 4, 4, requires_grad=True)
    found = features(model, images)
    assert found.shape == (2, 5)
    assert torch.equal(found, torch.tanh(model.network[1](images.flatten(1).expand(2, -1))))
    found.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert model.passes.forward == 2


def test_no_hook_stays_behind() -> None:
    model = _model(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))
    features_and_logits(model, torch.rand(2, 1, 4, 4))
    assert len(model.network[1]._forward_pre_hooks) == 0


class _PerPixel(nn.Module):
    """Applies its linear layer at every pixel and averages the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.permute(0, 2, 3, 1)).mean(dim=(1, 2))
        return logits


def test_a_head_that_does_not_read_feature_vectors_is_named() -> None:
    with pytest.raises(UsageError, match="'linear' of _PerPixel does not read one feature vector"):
        features(_model(_PerPixel()), torch.rand(2, 1, 4, 4))
