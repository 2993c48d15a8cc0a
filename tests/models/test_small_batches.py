from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robusteval.models.build import build_classifier
from robusteval.models.classifier import MIN_BATCH, Classifier
from robusteval.models.forms import LOGIT_PATIENCE, PATIENCE
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


@pytest.mark.parametrize(
    ("crowd", "least"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, MIN_BATCH), (13, MIN_BATCH)]
)
@pytest.mark.parametrize("gradient", [False, True])
def test_the_smallest_size_is_found_from_which_on_every_size_agrees(crowd: int, least: int, *, gradient: bool) -> None:
    model = classifier(Crowded(crowd))
    assert least_batch(model, images(MIN_BATCH), gradient=gradient) == least
    assert model.least_batch == model.least_logit_batch == MIN_BATCH


def test_logits_alone_may_agree_where_their_gradients_do_not() -> None:
    class Steep(Pooled):
        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images)
            return logits if len(images) >= 9 else logits + 2.0**-20 * (logits - logits.detach())

    model = classifier(Steep())
    assert least_batch(model, images(MIN_BATCH), gradient=False) == CANDIDATES[0]
    assert least_batch(model, images(MIN_BATCH), gradient=True) == MIN_BATCH


def test_few_images_are_enough_to_measure_on() -> None:
    assert least_batch(classifier(Crowded(5)), images(1), gradient=True) == 8


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
    model.least_batch = least_batch(model, batch, gradient=True)
    model.least_logit_batch = least_batch(model, batch, gradient=False)
    assert {model.least_batch, model.least_logit_batch} <= {*CANDIDATES, MIN_BATCH}
    for size in (1, 3, 5, 11):
        assert torch.equal(model(batch[:size]), whole[:size])
        with torch.no_grad():
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
        search.gradient(images(2, 16), lambda logits: logits.amax(dim=1))
        before = model.passes.forward
        search.adapt()
        counts.append(model.passes.forward - before)
    assert [count > 0 for count in counts] == [False] * (PATIENCE - 1) + [True, False, False]
    counts = []
    for _ in range(LOGIT_PATIENCE + 2):
        search.logits(images(2, 16))
        before = model.passes.snapshot()
        search.adapt()
        spent = model.passes.since(before)
        assert spent.backward == 0
        counts.append(spent.forward)
    assert [count > 0 for count in counts] == [False] * (LOGIT_PATIENCE - 1) + [True, False, False]
    assert model.least_batch == model.least_logit_batch == MIN_BATCH


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
    found = []
    for _ in range(PATIENCE + 1):
        search.adapt()
        found.append(search.gradient(images(3, 16), lambda logits: logits.amax(dim=1)))
    assert all(torch.equal(one[2], found[0][2]) and torch.equal(one[0], found[0][0]) for one in found)
    logits = []
    for _ in range(LOGIT_PATIENCE + 1):
        search.adapt()
        logits.append(search.logits(images(3, 16)))
    assert all(torch.equal(one, logits[0]) for one in logits)
