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
from robusteval.evaluators.clean import CleanEvaluator, CleanParams
from robusteval.evaluators.shift import ShiftEvaluator, ShiftParams
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


class Remembering(Wrapped):
    """Keeps what it has seen where no buffer shows it, and answers otherwise for it."""

    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.network(images) * (1.0 + 0.1 * (self.calls % 2))


class OwnGenerator(Wrapped):
    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        return logits + 0.1 * torch.randn(logits.shape, generator=self.generator)


class HarmlessCounter(Wrapped):
    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.network(images)


class Random(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        return self.network(images + 1e-3 * torch.randn_like(images))


class InfiniteOnBright(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        return torch.where((images[:, 0, 0, 0] > 1.7)[:, None], float("inf"), logits)


class NoGradient(Wrapped):
    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


class WholeNumbers(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        return (100 * self.network(images)).long()


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


@pytest.mark.parametrize(("wrapper", "found"), [(NanOnBright, "NaN"), (InfiniteOnBright, "infinite logits")])
def test_a_model_with_undefined_logits_is_refused_with_the_examples(wrapper, found, task) -> None:
    first = (task.data.images[:, 0, 0, 0] / 255 - 0.5) / 0.25
    bright = [name for name, value in zip(task.data.ids, first, strict=True) if value > 1.7]
    assert 0 < len(bright) < 90
    with pytest.raises(CellError, match=f"answered with {found} on example") as caught:
        evaluate(wrapped(task, wrapper), task.data)
    named = str(caught.value).split("example ")[1].split(";")[0].split(" and ")[0].split(", ")
    assert set(named) <= set(bright)


@pytest.mark.parametrize("wrapper", [Counting, Replacing])
def test_a_model_that_changes_its_buffers_is_refused_and_gets_them_back(wrapper, task) -> None:
    model = wrapped(task, wrapper)
    with pytest.raises(CellError, match=r"changed its own buffers network\.seen when it predicted example \w+/\d"):
        evaluate(model, task.data)
    assert model.network.seen == 0


MEASURED = {
    "attacked": lambda model, data: evaluate(model, data, ["fgsm"]),
    "clean": lambda model, data: CleanEvaluator(CleanParams()).evaluate(model, data, EvaluationContext()),
    "shifted": lambda model, data: ShiftEvaluator(ShiftParams()).evaluate(model, data, EvaluationContext()),
}


@pytest.mark.parametrize("how", MEASURED)
@pytest.mark.parametrize("wrapper", [Remembering, OwnGenerator])
def test_a_model_that_remembers_without_a_buffer_is_refused_with_the_examples(wrapper, how, task) -> None:
    with pytest.raises(CellError, match=r"otherwise when asked again about example \w+/\d+, .*it remembers"):
        MEASURED[how](wrapped(task, wrapper), task.data)


@pytest.mark.parametrize("wrapper", [HarmlessCounter, Random])
def test_a_model_whose_answers_do_not_depend_on_the_past_is_measured_at_the_usual_cost(wrapper, task) -> None:
    before = torch.get_rng_state()
    found = MEASURED["clean"](wrapped(task, wrapper), task.data)
    assert (found.budget.forward, found.budget.backward) == (90, 0)
    if wrapper is HarmlessCounter:
        assert torch.equal(torch.get_rng_state(), before)
    assert MEASURED["attacked"](wrapped(task, wrapper), task.data).outcomes["clean"].n == 90


def test_a_model_without_gradients_is_attacked_only_by_what_needs_none(task) -> None:
    model, few = wrapped(task, NoGradient), task.data.take(range(20))
    with pytest.raises(CellError, match=r"no gradient leads from the logits of example \w+/\d+ back to its pixels"):
        evaluate(model, few)
    blind = {"name": "square", "params": {"queries": 5}}
    assert evaluate(model, few, [blind]).outcomes == evaluate(task.model, few, [blind]).outcomes
    unmoved = AdversarialParams.model_validate({"attacks": ["fgsm"], "checks": False})
    context = EvaluationContext(threat=ThreatModel(epsilon=Epsilon("0")))
    assert AdversarialEvaluator(unmoved).evaluate(model, few, context).budget.backward == 0


def test_a_model_without_gradients_is_flagged_where_only_black_boxes_attacked_it(task) -> None:
    params = AdversarialParams.model_validate({"attacks": [{"name": "square", "params": {"queries": 5}}]})
    context = EvaluationContext(threat=THREAT)
    found = AdversarialEvaluator(params).evaluate(wrapped(task, NoGradient), task.data.take(range(20)), context)
    assert [flag.code for flag in found.flags] == ["no-gradient"]


def test_whole_numbers_are_no_logits(task) -> None:
    with pytest.raises(CellError, match=r"returned torch\.int64; return logits as floating point"):
        evaluate(wrapped(task, WholeNumbers), task.data)


@pytest.mark.parametrize("how", ["clean", "shifted"])
def test_clean_predictions_with_infinite_logits_are_flagged(how, task) -> None:
    (flag,) = MEASURED[how](wrapped(task, InfiniteOnBright), task.data).flags
    assert (flag.code, flag.severity) == ("nan-logits", "error")
    assert "NaN or infinite logits on" in flag.evidence


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
