from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robusteval.models.build import build_classifier
from robusteval.models.classifier import MIN_BATCH, Classifier
from robusteval.schema.errors import CellError
from robusteval.schema.types import Component

SHAPE = (3, 8, 8)


def _model(network: nn.Module | None = None, classes: int = 4) -> Classifier:
    if network is None:
        return build_classifier(
            Component(name="small-cnn", params={"width": 4}),
            classes=classes,
            input_shape=SHAPE,
            mean=(0.1, 0.2, 0.3),
            std=(0.5, 0.25, 0.125),
            seed=0,
        )
    return Classifier(network, classes=classes, input_shape=SHAPE, mean=(0.0,) * 3, std=(1.0,) * 3)


def _linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))


def _images(n: int) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(0))


class _Recorder(nn.Module):
    """Linear logits; remembers the batch sizes it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _linear()
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(images.shape[0])
        logits: Tensor = self.body(images)
        return logits


def test_images_are_normalised_inside() -> None:
    model = _model().eval()
    images = _images(20)
    by_hand = (images - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)) / torch.tensor([0.5, 0.25, 0.125]).view(
        1, 3, 1, 1
    )
    assert torch.equal(model(images), model.network(by_hand))
    assert torch.equal(model(images), model.classify(by_hand))


def test_mean_and_std_follow_the_model_but_not_its_state_dict() -> None:
    model = _model().double()
    assert model.mean.dtype == torch.float64
    assert not {"mean", "std"} & set(model.state_dict())


@pytest.mark.parametrize(
    ("mean", "std", "classes"),
    [
        ((0.5,), (0.5,) * 3, 4),
        ((0.5,) * 3, (0.5, 0.0, 0.5), 4),
        ((0.5,) * 3, (0.5, -1, 0.5), 4),
        ((0.5,) * 3, (0.5,) * 3, 1),
    ],
)
def test_a_contract_that_makes_no_sense_is_refused(
    mean: tuple[float, ...], std: tuple[float, ...], classes: int
) -> None:
    with pytest.raises(ValueError, match=r"mean and std|positive|classes"):
        Classifier(_linear(), classes=classes, input_shape=SHAPE, mean=mean, std=std)


@pytest.mark.parametrize("n", [0, 1, 7, 15, 16, 17])
def test_evaluation_pads_small_batches_and_cuts_the_padding_off(n: int) -> None:
    network = _Recorder()
    model = _model(network).eval()
    logits = model(_images(n))
    assert logits.shape == (n, 4)
    assert network.sizes == [max(n, MIN_BATCH)]
    torch.testing.assert_close(logits, network.body(_images(n)))


def test_training_does_not_pad() -> None:
    network = _Recorder()
    _model(network).train()(_images(3))
    assert network.sizes == [3]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("n", [1, 7, 16, 20])
def test_one_forward_and_backward_count_each_example_once(n: int, training: bool) -> None:
    model = _model().train(training)
    cross_entropy(model(_images(n)), torch.zeros(n, dtype=torch.int64)).backward()
    expected = (n, n)
    assert (model.passes.forward, model.passes.backward) == expected


def test_a_forward_without_gradients_counts_no_backward() -> None:
    model = _model().eval()
    with torch.no_grad():
        model(_images(5))
    model.predict(_images(6))
    assert (model.passes.forward, model.passes.backward) == (11, 0)


def test_every_gradient_through_one_forward_counts() -> None:
    model = _model().eval()
    images = _images(5).requires_grad_(True)
    logits = model(images)
    for label in range(4):
        torch.autograd.grad(logits[:, label].sum(), images, retain_graph=True)
    assert (model.passes.forward, model.passes.backward) == (5, 20)


def test_a_gradient_to_parameters_and_input_at_once_counts_once() -> None:
    model = _model().eval()
    images = _images(5).requires_grad_(True)
    torch.autograd.grad(model(images).logsumexp(1).sum(), [images, *model.parameters()])
    assert model.passes.backward == 5


def test_the_gradient_of_a_loss_with_respect_to_the_logits_is_no_pass() -> None:
    model = _model().eval()
    logits = model(_images(5))
    torch.autograd.grad(cross_entropy(logits, torch.zeros(5, dtype=torch.int64)), logits)
    assert model.passes.backward == 0


def test_double_backprop_counts_as_two_backward_passes() -> None:
    model = _model().eval()
    images = _images(5).requires_grad_(True)
    loss = cross_entropy(model(images), torch.zeros(5, dtype=torch.int64))
    (gradient,) = torch.autograd.grad(loss, images, create_graph=True)
    assert model.passes.backward == 5
    gradient.square().sum().backward()
    assert (model.passes.forward, model.passes.backward) == (5, 10)


def test_a_loss_on_part_of_the_batch_counts_the_whole_pass() -> None:
    model = _model().eval()
    model(_images(6))[:2].sum().backward()
    assert model.passes.backward == 6


def test_since_gives_what_was_spent_after_a_snapshot() -> None:
    model = _model().eval()
    model(_images(3))
    start = model.passes.snapshot()
    model(_images(4)).sum().backward()
    spent = model.passes.since(start)
    assert (spent.forward, spent.backward) == (4, 4)


def test_a_copy_counts_for_itself() -> None:
    model = _model().eval()
    other = copy.deepcopy(model)
    other(_images(3)).sum().backward()
    assert (model.passes.forward, model.passes.backward) == (0, 0)
    assert (other.passes.forward, other.passes.backward) == (3, 3)


@pytest.mark.parametrize("training", [False, True])
def test_every_module_gets_its_own_mode_back(training: bool) -> None:
    model = _model().train()
    model.network.bn1.eval()  # a frozen batch norm inside a training model
    before = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError, match="inside"), model.mode(training=training):
        assert all(module.training is training for module in model.modules())
        raise RuntimeError("inside")
    assert [module.training for module in model.modules()] == before


def test_freezing_gives_every_flag_and_gradient_back() -> None:
    model = _model().train()
    cross_entropy(model(_images(4)), torch.zeros(4, dtype=torch.int64)).backward()
    model.network.linear.weight.requires_grad_(False)
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    values = [None if gradient is None else gradient.clone() for _, _, gradient in before]
    with pytest.raises(RuntimeError, match="inside"), model.parameters_frozen():
        images = _images(4).requires_grad_(True)
        model(images).sum().backward()
        assert all(parameter.grad is None for parameter in model.parameters())
        model.zero_grad(set_to_none=False)
        raise RuntimeError("inside")
    for (parameter, flag, gradient), value in zip(before, values, strict=True):
        assert parameter.requires_grad is flag
        assert parameter.grad is gradient
        assert gradient is None or torch.equal(gradient, value)


def test_frozen_leaves_batch_norm_statistics_bitwise_alone() -> None:
    model = _model().train()
    model(_images(8))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    identities = {name: id(buffer) for name, buffer in model.named_buffers()}
    with model.frozen():
        model(_images(8))
        model.train()  # what a careless attack might do
        model(_images(8))
        model.network.bn1.running_mean = torch.full((4,), 9.0)
        changed = dict(model.named_buffers())
        assert not torch.equal(changed["network.layer1.bn.running_var"], before["network.layer1.bn.running_var"])
    after = dict(model.named_buffers())
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {name: id(buffer) for name, buffer in after.items()} == identities


def test_a_graph_built_inside_frozen_can_be_used_after_it() -> None:
    model = _model()
    images = _images(4).requires_grad_(True)
    with model.frozen():
        loss = model(images).logsumexp(1).sum()
    loss.backward()
    assert images.grad is not None
    assert all(parameter.grad is None for parameter in model.parameters())


def test_predict_runs_in_evaluation_mode_and_leaves_training_mode_on() -> None:
    model = _model().train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    labels = model.predict(_images(9))
    assert labels.dtype == torch.int64
    assert model.training
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert torch.equal(labels, model.eval()(_images(9)).argmax(1))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 1, 8, 8), r"\(2, 1, 8, 8\) do not fit the model"),
        (torch.rand(2, 3, 8, 9), "do not fit the model"),
        (torch.rand(3, 8, 8), "do not fit the model"),
        (torch.randint(0, 255, (2, 3, 8, 8), dtype=torch.uint8), "uint8"),
        (torch.rand(2, 3, 8, 8, dtype=torch.float64), "float64"),
    ],
)
@pytest.mark.parametrize("call", [Classifier.forward, Classifier.classify], ids=["forward", "classify"])
def test_wrong_images_are_named(call: Callable[[Classifier, Tensor], Tensor], images: Tensor, message: str) -> None:
    with pytest.raises(CellError, match=message):
        call(_model(), images)


class _Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


@pytest.mark.parametrize("network", [_Pair(), nn.Flatten(), _linear()], ids=["tuple", "features", "classes"])
def test_a_network_that_does_not_return_one_logit_a_class_is_named(network: nn.Module) -> None:
    with pytest.raises(CellError, match="not logits"):
        _model(network, classes=5).eval()(_images(2))
