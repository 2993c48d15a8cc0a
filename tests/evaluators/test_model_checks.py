"""What bad models and bad attacks get: an error that names the examples, and the model back as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robusteval.attacks import base
from robusteval.attacks.base import Attack
from robusteval.data.imageset import ImageSet
from robusteval.evaluators.adversarial import AdversarialEvaluator, AdversarialParams
from robusteval.evaluators.base import EvaluationContext
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import CellError
from robusteval.schema.types import Epsilon, Frozen, Norm, ThreatModel

THREAT = ThreatModel(epsilon=Epsilon("0.03"))
SHORT = {"version": "custom", "attacks": ["apgd-ce", "square"], "steps": 3, "queries": 10, "restarts": 1}
ENGINE = {"name": "autoattack", "params": SHORT}


class Wrapped(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


class NanOnBright(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        return torch.where((images[:, 0, 0, 0] > 1.7)[:, None], float("nan"), logits)


class Counting(Wrapped):
    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.seen += 1
        return self.network(images)


class Replacing(Counting):
    def forward(self, images: Tensor) -> Tensor:
        self.seen = self.seen + 1
        return self.network(images)


class ManyAtATime(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        if len(images) == 1:
            raise ValueError("expected more than 1 value per channel")
        return self.network(images)


class Raising(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        raise IndexError("index 7 is out of bounds")


def wrapped(task, wrapper) -> Classifier:
    model = Classifier(wrapper(task.model.network), classes=6, input_shape=(3, 10, 10), mean=[0.5] * 3, std=[0.25] * 3)
    return model.eval()


def evaluate(model, data, attacks=(ENGINE,), **context):
    params = AdversarialParams.model_validate({"attacks": list(attacks), "checks": False})
    return AdversarialEvaluator(params).evaluate(model, data, EvaluationContext(threat=THREAT, **context))


def test_a_model_that_answers_with_nan_is_refused_with_the_examples(task) -> None:
    first = (task.data.images[:, 0, 0, 0] / 255 - 0.5) / 0.25
    bright = [name for name, value in zip(task.data.ids, first, strict=True) if value > 1.7]
    assert 0 < len(bright) < 90
    with pytest.raises(CellError, match="answered with NaN on example") as caught:
        evaluate(wrapped(task, NanOnBright), task.data)
    named = str(caught.value).split("example ")[1].split(";")[0].split(" and ")[0].split(", ")
    assert set(named) <= set(bright)


@pytest.mark.parametrize("wrapper", [Counting, Replacing])
def test_a_model_that_changes_its_buffers_is_refused_and_gets_them_back(wrapper, task) -> None:
    model = wrapped(task, wrapper)
    with pytest.raises(CellError, match=r"changed its own buffers network\.seen when it predicted example \w+/\d"):
        evaluate(model, task.data)
    assert model.network.seen == 0


def test_a_model_that_cannot_take_one_image_is_evaluated_like_any_other(task) -> None:
    found = evaluate(wrapped(task, ManyAtATime), task.data.take(range(17)), batch_size=1)
    assert found == evaluate(task.model, task.data.take(range(17)))


def test_a_model_that_raises_is_named_with_the_examples(task) -> None:
    with pytest.raises(CellError, match=r"raised IndexError on example \w+/\d+, .* and 85 more: index 7 is out"):
        evaluate(wrapped(task, Raising), task.data)


def test_a_model_spread_over_devices_is_refused(task) -> None:
    model = wrapped(task, Wrapped)
    model.network.register_buffer("elsewhere", torch.zeros(1, device="meta"))
    with pytest.raises(CellError, match=r"on cpu and its network\.elsewhere on meta; move all"):
        evaluate(model, task.data)


def test_labels_that_the_model_does_not_have_are_named(task) -> None:
    data = task.data
    labels = data.labels.copy()
    labels[[4, 9]] = 6
    more = ImageSet(data.images, labels, data.ids, data.groups, data.domains, (*data.classes, "g"))
    with pytest.raises(CellError, match="label 6 and the model only 6 classes; example 'plain/4' and 1 more have"):
        evaluate(task.model, more)


def test_images_of_another_channel_count_are_refused(task) -> None:
    data = task.data
    grey = ImageSet(data.images[:, :1].copy(), data.labels, data.ids, data.groups, data.domains, data.classes)
    with pytest.raises(CellError, match=r"\(1, 10, 10\) and the model takes \(3, 10, 10\)"):
        evaluate(task.model, grey)


class NoParams(Frozen):
    pass


class Straying(Attack[NoParams]):
    """Leaves the pixel box on one example."""

    name = "straying"
    Params = NoParams
    norms = frozenset(Norm)
    victim = 0

    def run(self, model, images, labels, *, keys, seed):
        strayed = images.clone()
        strayed[keys == self.victim] += 2
        return strayed


@pytest.mark.parametrize("batch_size", [128, 7])
def test_what_an_attack_broke_is_named_by_id_whatever_the_batch(batch_size, task, monkeypatch) -> None:
    load = base.ATTACKS.load
    monkeypatch.setattr(type(base.ATTACKS), "load", lambda self, name: Straying if name == "straying" else load(name))
    right = np.array(evaluate(task.model, task.data, ["fgsm"]).outcomes["clean"].unpack()).nonzero()[0]
    victim = int(right[40])
    monkeypatch.setattr(Straying, "victim", int(task.data.keys[victim]))
    with pytest.raises(CellError, match=f"left the pixel box for example {task.data.ids[victim]}: pixels in"):
        evaluate(task.model, task.data, ["straying"], batch_size=batch_size)


def state(model: Classifier) -> list[object]:
    return [
        [module.training for module in model.modules()],
        [(parameter.requires_grad, parameter.detach().tolist()) for parameter in model.parameters()],
        [None if parameter.grad is None else parameter.grad.tolist() for parameter in model.parameters()],
        [buffer.tolist() for buffer in model.buffers()],
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_mode_gradients_and_buffers_come_back_as_they_were(fails, task) -> None:
    model = wrapped(task, Wrapped)
    inner = model.network.network
    try:
        model.train()
        inner[1].eval()
        inner[4].weight.requires_grad_(False)
        inner[0].weight.grad = torch.full_like(inner[0].weight, 0.5)
        before = state(model)
        if fails:
            inner[4].register_forward_hook(lambda module, given, found: found * float("nan"))
            with pytest.raises(CellError, match="NaN"):
                evaluate(model, task.data)
        else:
            evaluate(model, task.data, [ENGINE, "fgsm", {"name": "torchattacks/PGD"}])
        assert state(model) == before
    finally:
        inner[4]._forward_hooks.clear()
        inner[4].weight.requires_grad_(True)
        task.model.eval()
        task.model.zero_grad(set_to_none=True)
