from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robusteval.models.build import build_classifier
from robusteval.models.checkpoint_info import CheckpointInfo
from robusteval.models.checkpoints import load_checkpoint
from robusteval.models.classifier import Classifier
from robusteval.models.form_building import LOGIT_TOLERANCE, PROBES, SIGN_LIMIT
from robusteval.models.importing import import_weights
from robusteval.models.low_precision import low_dtype
from robusteval.models.search import SearchModel
from robusteval.models.search_plan import Precision
from robusteval.schema.types import Component

PRECISIONS: tuple[Precision, ...] = ("exact", "fast")
NO_LOW = low_dtype(torch.device("cpu"))[1]
needs_low = pytest.mark.skipif(bool(NO_LOW), reason=NO_LOW or "-")


def _images(n: int, size: int = 8, seed: int = 7) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def _frozen(model: Classifier) -> Classifier:
    """The model with batch norms as training leaves them, ready for attacks."""
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0.0, 0.3, generator=generator)
            module.running_var.uniform_(0.3, 2.0, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0.0, 0.3, generator=generator)
    return model.eval().requires_grad_(False)


def _model(name: str = "small-cnn", size: int = 8, **params: object) -> Classifier:
    component = Component(name=name, params=params)
    return _frozen(
        build_classifier(
            component, classes=5, input_shape=(3, size, size), mean=(0.4, 0.5, 0.6), std=(0.3, 0.2, 0.25), seed=1
        )
    )


def _around(network: nn.Module) -> Classifier:
    return _frozen(Classifier(network, classes=5, input_shape=(3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3))


def _cross_entropy(logits: Tensor) -> Tensor:
    return logits.logsumexp(dim=1) - logits[:, 0]


class _Convolutional(nn.Module):
    """A convolution, its batch norm and a linear layer, for what a test changes about them."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.conv = nn.Conv2d(3, 4, 3)
            self.bn = nn.BatchNorm2d(4)
            self.linear = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(torch.relu(self.bn(self.conv(images))).mean(dim=(2, 3)))
        return logits


class _ChangesWhatItReads(_Convolutional):
    """A sum in place that another name sees, which a traced network does not."""

    def forward(self, images: Tensor) -> Tensor:
        maps = self.bn(self.conv(images)) * 2.0
        same = maps
        maps += 1.0
        logits: Tensor = self.linear(torch.relu(maps + same).mean(dim=(2, 3)))
        return logits


class _LooksIntoItsNorm(_Convolutional):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * self.bn.eps


class _LooksIntoItsConvolution(_Convolutional):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * self.conv.weight.sum()


class _Random(_Convolutional):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + 0.1 * torch.randn_like(images))


class _Uncopyable(_Convolutional):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class _FloatOnly(_Convolutional):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + torch.zeros(1, dtype=torch.float32))


class _Cancelling(_Convolutional):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward((images + 3000.0) - 3000.0)


@pytest.mark.parametrize(
    ("name", "params", "folded"),
    [
        ("small-cnn", {"width": 4}, 3),
        ("resnet20", {}, 19),
        ("preact-resnet18", {"width": 4}, 8),
        ("wide-resnet", {"depth": 10, "width": 2}, 4),
    ],
)
def test_the_exact_form_folds_what_it_can_and_keeps_logits_and_gradients(
    name: str, params: dict[str, int], folded: int
) -> None:
    model = _model(name, **params)
    search = SearchModel(model)
    images = _images(20)
    logits, losses, gradient = search.gradient(images, _cross_entropy)
    expected, _, reference = SearchModel(_without_forms(model)).gradient(images, _cross_entropy)
    assert (search.plan.precision, search.plan.copied, search.plan.unfolded) == ("exact", True, "")
    assert (search.plan.folded, search.plan.memory_format, search.plan.dtype) == (folded, "channels_last", "float32")
    assert search.plan.fused
    assert 0 < search.plan.logit_error < LOGIT_TOLERANCE / 10
    assert torch.allclose(logits, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert torch.allclose(losses, _cross_entropy(expected), rtol=1e-4, atol=1e-5)
    assert torch.allclose(gradient, reference, rtol=0, atol=1e-4 * float(reference.abs().max()))
    assert torch.allclose(search.logits(images), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


class _Original(Classifier):
    """A classifier that does more than its network, for all that a search may know."""


def _without_forms(model: Classifier) -> Classifier:
    original = _Original(
        model.network,
        classes=model.classes,
        input_shape=model.input_shape,
        mean=model.mean.flatten().tolist(),
        std=model.std.flatten().tolist(),
    )
    return original.eval()


def test_a_network_that_tracing_changes_is_not_fused() -> None:
    model = _around(_ChangesWhatItReads())
    search = SearchModel(model)
    assert torch.allclose(search.logits(_images(20)), model(_images(20)), atol=1e-5)
    assert (search.plan.copied, search.plan.fused) == (True, False)


def test_a_derived_classifier_is_searched_as_it_is() -> None:
    model = _without_forms(_model(width=4))
    search = SearchModel(model, "fast")
    assert torch.equal(search.logits(_images(20)), model(_images(20)))
    assert not search.plan.copied
    assert "_Original may do more than its network" in search.plan.unfolded


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (_LooksIntoItsNorm, "folding fails: AttributeError"),
        (_LooksIntoItsConvolution, "folded logits differ by"),
    ],
    ids=["norm", "convolution"],
)
def test_a_network_that_folding_would_change_is_copied_unfolded(network: type[nn.Module], reason: str) -> None:
    model = _around(network())
    search = SearchModel(model)
    logits = search.logits(_images(20))
    assert search.plan.unfolded.startswith(reason)
    assert (search.plan.copied, search.plan.folded, search.plan.batch_norms) == (True, 0, 1)
    assert torch.allclose(logits, model(_images(20)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("network", "reason"),
    [(_Random, "copied logits differ by"), (_Uncopyable, "copying fails: TypeError: cannot pickle")],
    ids=["random", "uncopyable"],
)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_network_whose_copy_is_another_is_searched_as_it_is(
    network: type[nn.Module], reason: str, precision: Precision
) -> None:
    model = _around(network())
    search = SearchModel(model, precision)
    search.prepare(_images(20))
    assert reason in search.plan.unfolded
    assert (search.plan.asked, search.plan.precision, search.plan.copied) == (precision, "exact", False)
    torch.manual_seed(1)
    logits = search.logits(_images(20))
    torch.manual_seed(1)
    assert torch.equal(logits, model(_images(20)))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_original_is_untouched(precision: Precision) -> None:
    model = _model("resnet20")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.network.linear.weight.requires_grad_(True)  # type: ignore[union-attr]
    modules = list(model.modules())
    SearchModel(model, precision).gradient(_images(20), _cross_entropy)
    assert list(model.modules()) == modules
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    assert [name for name, value in model.named_parameters() if value.requires_grad] == ["network.linear.weight"]
    assert model.network.linear.weight.grad is None  # type: ignore[union-attr]
    assert not any(module.training or module._forward_hooks for module in modules)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_passes_of_every_form_count_as_the_classifiers_without_padding(precision: Precision) -> None:
    model = _model(width=4)
    search = SearchModel(model, precision)
    search.prepare(_images(16))
    for call, forward, backward in (
        (lambda: search.logits(_images(3)), 3, 0),
        (lambda: search.exact_logits(_images(3)), 3, 0),
        (lambda: search.low_logits(_images(3)), 3, 0),
        (lambda: search.gradient(_images(20), _cross_entropy), 20, 20),
        (lambda: search.gradients(_images(3), lambda logits: logits[:, :4]), 3, 12),
    ):
        before = model.passes.snapshot()
        call()
        spent = model.passes.since(before)
        assert (spent.forward, spent.backward) == (forward, backward)


def test_preparing_costs_what_it_says() -> None:
    model = _model(width=4)
    search = SearchModel(model, "fast")
    search.at("exact").prepare(_images(40))
    assert (model.passes.forward, model.passes.backward) == (49, 0)
    search.prepare(_images(40))
    low = 0 if NO_LOW else 64
    assert (model.passes.forward, model.passes.backward) == (49 + low + bool(low), low)
    search.prepare(_images(40, seed=9))
    assert (model.passes.forward, model.passes.backward) == (49 + low + bool(low), low)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("name", "size", "params"), [("small-cnn", 16, {}), ("resnet20", 32, {}), ("preact-resnet18", 8, {"width": 4})]
)
def test_logits_and_gradients_are_bitwise_the_same_in_every_batch_and_place(
    name: str, size: int, params: dict[str, int], precision: Precision
) -> None:
    model = _model(name, size, **params)
    search = SearchModel(model, precision)
    images = _images(128, size)
    logits, _, gradient = search.gradient(images, _cross_entropy)
    assert torch.equal(search.logits(images), logits)
    for count in (1, 7, 16, 17, 64, 128):
        places = torch.randperm(128, generator=torch.Generator().manual_seed(count))[:count]
        part = search.gradient(images[places], _cross_entropy)
        assert torch.equal(part[0], logits[places])
        assert torch.equal(part[2], gradient[places])
        assert torch.equal(search.logits(images[places]), logits[places])


def test_several_gradients_are_those_taken_one_by_one() -> None:
    search = SearchModel(_model(width=4))
    logits, values, gradients = search.gradients(_images(20), lambda found: found[:, 1:3])
    assert torch.equal(values, logits[:, 1:3])
    for position, column in enumerate((1, 2)):
        alone = search.gradient(_images(20), lambda found, column=column: found[:, column])  # type: ignore[misc]
        assert torch.equal(gradients[:, position], alone[2])


@needs_low
def test_fast_search_states_the_error_that_it_makes() -> None:
    search = SearchModel(_model("resnet20"), "fast")
    plan = search.prepare(_images(PROBES))
    assert (plan.asked, plan.precision, plan.dtype, plan.reason) == ("fast", "fast", "bfloat16", "")
    difference = search.low_logits(_images(PROBES)) - search.exact_logits(_images(PROBES))
    assert search.low_error == pytest.approx(float(difference.square().mean().sqrt()), rel=1e-5)
    assert search.low_error > 100 * plan.logit_error * float(search.logits(_images(PROBES)).square().mean().sqrt())
    assert 0 < plan.sign_disagreement < SIGN_LIMIT


@needs_low
def test_fast_search_returns_float32() -> None:
    search = SearchModel(_model(width=4), "fast")
    found = (*search.gradient(_images(20), _cross_entropy), *search.gradients(_images(20), lambda x: x[:, :2]))
    assert {tensor.dtype for tensor in (*found, search.logits(_images(20)))} == {torch.float32}
    assert search.plan.dtype == "bfloat16"


@needs_low
@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: _around(_FloatOnly()), "the network does not run in low precision: RuntimeError"),
        (lambda: _around(_Cancelling()), "low precision misleads: root mean square logit error"),
        (lambda: _model(width=4).double(), "the network is used as it is, in its own type"),
    ],
    ids=["float32-only", "cancelling", "float64"],
)
def test_fast_search_falls_back_to_exact_and_says_why(build: Callable[[], Classifier], reason: str) -> None:
    search = SearchModel(build(), "fast")
    images = _images(40)
    plan = search.prepare(images)
    assert plan.reason.startswith(reason)
    assert (plan.asked, plan.precision, plan.low_error, plan.sign_disagreement) == ("fast", "exact", 0.0, 0.0)
    assert torch.equal(search.low_logits(images), search.exact_logits(images))


@pytest.mark.parametrize("kind", ["mps", "meta"])
def test_devices_that_are_not_known_to_gain_search_exactly(kind: str) -> None:
    assert low_dtype(torch.device(kind)) == (None, f"no low precision is known to help on {kind}")


def test_views_share_copies_and_measurements() -> None:
    model = _model(width=4)
    search = SearchModel(model, "fast")
    search.prepare(_images(20))
    before = model.passes.snapshot()
    exact = search.at("exact")
    exact.prepare(_images(20, seed=9))
    assert model.passes.since(before).forward == 0
    assert (exact.plan.asked, search.plan.asked) == ("exact", "fast")
    assert exact.plan.logit_error == search.plan.logit_error
    assert torch.equal(exact.logits(_images(20)), search.exact_logits(_images(20)))
    assert search.at("fast") is search


def test_autocast_around_a_search_changes_nothing() -> None:
    search = SearchModel(_model(width=4))
    expected = search.logits(_images(20))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(search.logits(_images(20)), expected)


def test_a_search_model_fits_until_the_weights_change() -> None:
    model = _model(width=4)
    search = SearchModel(model)
    with model.frozen():
        search.logits(_images(20))
    assert search.fits(model)
    assert not search.fits(_model(width=4))
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    assert not search.fits(model)


def test_a_plan_must_be_measured_before_it_is_read() -> None:
    search = SearchModel(_model(width=4), "fast")
    with pytest.raises(RuntimeError, match=r"the fast form has not been measured; call prepare\(images\) first"):
        _ = search.low_error


def test_no_images_get_no_logits_and_measure_nothing() -> None:
    model = _model(width=4)
    search = SearchModel(model)
    assert search.logits(_images(0)).shape == (0, 5)
    assert model.passes.forward == 0
    assert search.prepare(_images(0)).copied


def test_copies_are_freed_with_the_search_model() -> None:
    model = _model(width=4)
    search = SearchModel(model, "fast")
    search.gradient(_images(20), _cross_entropy)
    copies: list[Callable[[], object]] = [
        weakref.ref(form) for form in (search._forms.of("exact"), search._forms.of("fast"))
    ]
    assert all(copy() is not None and copy() is not model for copy in copies)
    del search
    gc.collect()
    assert [copy() for copy in copies] == [None, None]


@pytest.mark.shared
def test_fast_search_is_admitted_for_published_cifar_10_weights(shared: Path) -> None:
    path = shared / "models" / "resnet20-cifar10.safetensors"
    info = CheckpointInfo(
        architecture=Component(name="resnet20"),
        classes=10,
        input_shape=(3, 32, 32),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    model, _ = load_checkpoint(import_weights(path, info), source=str(path))
    plan = SearchModel(_frozen_only(model), "fast").prepare(_images(40, size=32))
    assert (plan.folded, plan.batch_norms) == (19, 19)
    assert plan.logit_error < LOGIT_TOLERANCE / 10
    assert plan.precision == ("exact" if NO_LOW else "fast")


def _frozen_only(model: Classifier) -> Classifier:
    return model.eval().requires_grad_(False)
