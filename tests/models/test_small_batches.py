from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robusteval.models.build import build_classifier
from robusteval.models.classifier import MIN_BATCH, Classifier
from robusteval.models.forms import PATIENCE
from robusteval.models.search import SearchModel
from robusteval.models.small_batches import CANDIDATES, least_batch
from robusteval.schema.types import Component


class Pooled(nn.Module):
    """Logits from sums over pixels: an image's bits do not depend on its company, however small."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([images[:, 0].sum(dim=(1, 2)), images[:, 1].sum(dim=(1, 2))], dim=1)


class Crowded(Pooled):
    """The same, but for one rounding error in batches of fewer than `crowd` images."""

    def __init__(self, crowd: int) -> None:
        super().__init__()
        self.crowd = crowd

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits if len(images) >= self.crowd else logits * (1.0 + 2.0**-20)


def classifier(network: nn.Module) -> Classifier:
    model = Classifier(network, classes=2, input_shape=(3, 4, 4), mean=(0.5,) * 3, std=(0.25,) * 3)
    return model.eval().requires_grad_(False)


def images(n: int, side: int = 4) -> Tensor:
    return torch.rand((n, 3, side, side), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("crowd", "least"), [(1, 4), (4, 4), (5, 8), (8, 8), (9, MIN_BATCH), (13, MIN_BATCH)])
def test_the_smallest_size_is_found_from_which_on_every_size_agrees(crowd: int, least: int) -> None:
    model = classifier(Crowded(crowd))
    assert least_batch(model, images(MIN_BATCH)) == least
    assert model.least_batch == MIN_BATCH


def test_few_images_are_enough_to_measure_on() -> None:
    assert least_batch(classifier(Crowded(5)), images(1)) == 8


def test_what_a_real_network_is_padded_to_gives_the_bits_of_a_full_batch() -> None:
    model = build_classifier(
        Component(name="resnet20"),
        classes=10,
        input_shape=(3, 16, 16),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        seed=0,
    )
    model = model.eval().requires_grad_(False)
    batch = images(MIN_BATCH, 16)
    whole = model(batch)
    model.least_batch = least_batch(model, batch)
    assert model.least_batch in (*CANDIDATES, MIN_BATCH)
    for size in (1, 3, 5, 11):
        assert torch.equal(model(batch[:size]), whole[:size])


def test_a_search_measures_once_small_batches_keep_coming_and_leaves_the_original_alone() -> None:
    model = build_classifier(
        Component(name="small-cnn"),
        classes=10,
        input_shape=(3, 16, 16),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        seed=0,
    )
    model = model.eval().requires_grad_(False)
    search = SearchModel(model)
    search.prepare(images(MIN_BATCH, 16))
    counts = []
    for _ in range(PATIENCE + 2):
        before = model.passes.forward
        search.gradient(images(2, 16), lambda logits: logits.amax(dim=1))
        counts.append(model.passes.forward - before)
    assert [count > 2 for count in counts] == [False] * (PATIENCE - 1) + [True, False, False]
    assert model.least_batch == MIN_BATCH


def test_results_do_not_change_when_the_padding_does() -> None:
    model = build_classifier(
        Component(name="resnet20"),
        classes=10,
        input_shape=(3, 16, 16),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        seed=0,
    )
    model = model.eval().requires_grad_(False)
    search = SearchModel(model)
    search.prepare(images(MIN_BATCH, 16))
    found = [search.gradient(images(3, 16), lambda logits: logits.amax(dim=1)) for _ in range(PATIENCE + 1)]
    assert all(torch.equal(one[2], found[0][2]) and torch.equal(one[0], found[0][0]) for one in found)
