"""Domains with fewer classes: clean and adversarial evaluation among the labels of each domain alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from robusteval.data.imageset import ImageSet
from robusteval.evaluators.adversarial import AdversarialEvaluator, AdversarialParams
from robusteval.evaluators.base import EvaluationContext
from robusteval.evaluators.clean import CleanEvaluator, CleanParams
from robusteval.evaluators.details import BLOB
from robusteval.evaluators.views import Views
from robusteval.models.classifier import Classifier
from robusteval.models.search import SearchModel
from robusteval.schema.records import Evaluation
from robusteval.schema.types import Component, Epsilon, Norm, ThreatModel
from robusteval.store.columns import read_columns
from robusteval.store.scratch import Scratch

LABELS = (1, 2, 4, 5)
SHAPE = (3, 10, 10)


@pytest.fixture(scope="module")
def model() -> Classifier:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Flatten()
    )
    network.append(torch.nn.Linear(8 * 16, 6))
    return Classifier(network, classes=6, input_shape=SHAPE, mean=[0.5] * 3, std=[0.25] * 3).eval()


def examples(model: Classifier, labels: tuple[int, ...], domain: str, seed: int) -> ImageSet:
    """Random images, half of them with the label that the model gives among `labels`."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (24, *SHAPE), dtype=np.uint8)
    with torch.no_grad():
        logits = model(torch.from_numpy(images).float() / 255)[:, list(labels)]
    found = np.array(labels)[np.where(np.arange(24) % 2, logits.argmax(1).numpy(), logits.argmin(1).numpy())]
    ids = tuple(f"{domain}/{index}" for index in range(24))
    names = tuple("abcdef")
    return ImageSet(images, found.astype(np.int64), ids, ids, (domain,) * 24, names)


def attacked(model: Classifier, data: ImageSet, scratch: Scratch | None = None, **params: object) -> Evaluation:
    threat = ThreatModel(norm=Norm.LINF, epsilon=Epsilon("4/255"))
    context = EvaluationContext(threat=threat, scratch=scratch, batch_size=7)
    attacks = [Component(name="apgd-t", params={"steps": 4}), Component(name="pgd", params={"steps": 3})]
    chosen = AdversarialParams.model_validate({"attacks": attacks, **params})
    return AdversarialEvaluator(chosen).evaluate(model, data, context)


def among(model: Classifier, data: ImageSet) -> tuple[Classifier, ImageSet]:
    """The same task written out: a network with fewer outputs, and labels in its numbering."""
    narrow = Classifier(
        torch.nn.Sequential(*model.network[:-1], torch.nn.Linear(8 * 16, len(LABELS))),  # type: ignore[index]
        classes=len(LABELS),
        input_shape=SHAPE,
        mean=[0.5] * 3,
        std=[0.25] * 3,
    ).eval()
    last, new = model.network[-1], narrow.network[-1]  # type: ignore[index]
    new.load_state_dict({"weight": last.weight[list(LABELS)], "bias": last.bias[list(LABELS)]})
    classes = tuple(data.classes[label] for label in LABELS)
    return narrow, replace(data, labels=np.searchsorted(LABELS, data.labels), classes=classes)


def test_a_restricted_view_has_the_logits_of_the_original_and_its_pass_counter(model: Classifier) -> None:
    images = torch.rand(20, *SHAPE)
    view = model.restricted(LABELS)
    before = model.passes.forward
    assert torch.equal(view(images), model(images)[:, list(LABELS)])
    assert model.passes.forward == before + 40
    assert view.classes == 4
    assert model.classes == 6
    assert set(model.state_dict()) == {f"network.{name}" for name in model.network.state_dict()}


def test_a_view_is_searched_with_batch_norm_folded(model: Classifier) -> None:
    view = model.restricted(LABELS)
    images = torch.rand(16, *SHAPE)
    with view.frozen():
        search = SearchModel(view)
        logits, _, gradient = search.gradient(images, lambda logits: logits.logsumexp(dim=1))
        assert search.plan.folded == 1
        torch.testing.assert_close(logits, view(images), rtol=1e-4, atol=1e-5)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("labels", [(1,), (1, 1), (0, 6), (-1, 2)])
def test_labels_that_the_model_does_not_have_are_refused(model: Classifier, labels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"labels must be 2 or more of 0\.\.5"):
        model.restricted(labels)


def test_an_example_outside_its_domains_classes_is_refused(model: Classifier) -> None:
    data = examples(model, (0, 1), "r", 0)
    with pytest.raises(ValueError, match="'r' has an example of a class outside its subset"):
        replace(data, subsets={"r": LABELS})


def test_clean_numbers_are_those_of_a_model_with_fewer_outputs(model: Classifier) -> None:
    data = examples(model, LABELS, "r", 0)
    found = CleanEvaluator(CleanParams()).evaluate(model, replace(data, subsets={"r": LABELS}), EvaluationContext())
    written = CleanEvaluator(CleanParams()).evaluate(*among(model, data), EvaluationContext())
    everything = CleanEvaluator(CleanParams()).evaluate(model, data, EvaluationContext())
    assert found.outcomes == written.outcomes != everything.outcomes
    for mine, theirs in zip(found.metrics, written.metrics, strict=True):
        assert mine.value == pytest.approx(theirs.value, rel=1e-6)


def test_attacks_are_those_on_a_model_with_fewer_outputs(model: Classifier) -> None:
    data = examples(model, LABELS, "r", 0)
    found = attacked(model, replace(data, subsets={"r": LABELS}))
    written = attacked(*among(model, data))
    assert found.outcomes == written.outcomes
    assert found.budget == written.budget
    assert 0 < sum(found.outcomes["robust"].unpack()) < sum(found.outcomes["clean"].unpack())


def test_each_domain_is_attacked_among_its_own_classes(model: Classifier) -> None:
    whole = examples(model, tuple(range(6)), "v2", 1)
    part = replace(examples(model, LABELS, "r", 0), subsets={"r": LABELS})
    both = attacked(model, ImageSet.concatenate([part, whole]).take(np.arange(48).reshape(2, 24).T.reshape(-1)))
    for name, bits in both.outcomes.items():
        assert bits.unpack()[0::2] == attacked(model, part).outcomes[name].unpack()
        assert bits.unpack()[1::2] == attacked(model, whole).outcomes[name].unpack()


def test_details_tell_classes_in_the_numbering_of_the_data(model: Classifier, tmp_path_factory: object) -> None:
    scratch = Scratch(tmp_path_factory.mktemp("scratch"))  # type: ignore[attr-defined]
    data = replace(examples(model, LABELS, "r", 0), subsets={"r": LABELS})
    attacked(model, data, scratch)
    columns = read_columns(scratch.get(BLOB) or b"")[0]
    assert columns["label"].tolist() == data.labels.tolist()
    assert set(columns["prediction"].tolist()) <= set(LABELS)


def test_data_without_subsets_stays_as_it_is(model: Classifier) -> None:
    data = examples(model, LABELS, "r", 0)
    views = Views(model, data)
    assert views.models == [model]
    assert views.data is data
