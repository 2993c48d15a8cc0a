from __future__ import annotations

import numpy as np
import pytest
import torch

import robusteval
from robusteval.schema.errors import CellError, RobustevalError, UsageError
from robusteval.schema.types import Component


def test_an_attack_stays_in_the_ball_and_breaks_what_it_says(network, pixels):
    images, labels = pixels[0][:20], pixels[1][:20]
    found = robusteval.attack(network, images, labels, "linf-0.2", using=Component(name="pgd", params={"steps": 5}))
    assert float((found.adversarial - images).abs().max()) <= 0.2 + 1e-6
    wrong = network(found.adversarial).argmax(1) != labels
    assert torch.equal(wrong, found.broken)
    assert int(found.broken.sum()) > 10


def test_arrays_and_bytes_are_pixels_too(network, pixels):
    images = (pixels[0][:4] * 255).round().byte().numpy()
    found = robusteval.attack(network, images, pixels[1][:4].tolist(), "l2:0.5", using="fgsm")
    assert found.adversarial.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda images: images * 255, "divide them by 255"),
        (lambda images: (images - 0.5) / 0.2, "declare mean and std for the model instead"),
        (lambda images: images[0], r"give \(B, C, H, W\)"),
        (lambda images: images.long(), "give uint8 pixels"),
    ],
)
def test_what_is_no_pixel_is_refused(network, pixels, change, words):
    with pytest.raises(UsageError, match=words):
        robusteval.attack(network, change(pixels[0][:4]), pixels[1][:4])


@pytest.mark.parametrize("threat", ["linf", "l3-1", "linf-x", "linf--1"])
def test_a_threat_is_a_norm_and_a_radius(network, pixels, threat):
    with pytest.raises(UsageError, match="write norm and radius"):
        robusteval.attack(network, pixels[0][:4], pixels[1][:4], threat)


def test_images_are_turned_where_the_threat_says_so(network, pixels):
    attack = Component(name="spatial", params={"angles": 3, "shifts": 1})
    found = robusteval.attack(network, pixels[0][:4], pixels[1][:4], "spatial-40deg-0.1", using=attack)
    assert found.adversarial.shape == pixels[0][:4].shape
    with pytest.raises(UsageError, match="use attack 'spatial' there"):
        robusteval.attack(network, pixels[0][:4], pixels[1][:4], "spatial-40deg-0.1")


def test_one_label_an_image(network, pixels):
    with pytest.raises(UsageError, match=r"\(3,\) labels for 4 images"):
        robusteval.attack(network, pixels[0][:4], pixels[1][:3])


def test_a_corruption_gives_back_the_kind_that_it_got():
    floats = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    bright = robusteval.corrupt(floats, "brightness", 5)
    assert bright.dtype == torch.float32
    assert float(bright.mean()) > float(floats.mean())
    as_bytes = (floats * 255).round().byte()
    assert robusteval.corrupt(as_bytes.numpy(), "gaussian_noise", 1, seed=1).dtype == torch.uint8
    assert torch.equal(robusteval.corrupt(as_bytes, "gaussian_noise"), robusteval.corrupt(as_bytes, "gaussian_noise"))


def test_reversed_channels_are_taken_as_they_are_seen():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    expected = robusteval.corrupt(images[:, ::-1].copy(), "brightness")
    assert torch.equal(robusteval.corrupt(images[:, ::-1], "brightness"), expected)


@pytest.mark.parametrize("images", ["cat.png", [[1.0, 2.0], [3.0]], np.array([None])])
def test_what_is_no_array_of_numbers_is_refused(images):
    with pytest.raises(UsageError, match=r"images are a (str|list|ndarray) that is no array of numbers"):
        robusteval.corrupt(images, "brightness")


def test_unknown_corruptions_and_severities_are_refused():
    images = np.zeros((1, 3, 32, 32), dtype=np.uint8)
    with pytest.raises(UsageError, match="unknown shift 'brigthness'; did you mean 'brightness'"):
        robusteval.corrupt(images, "brigthness")
    with pytest.raises(UsageError, match="parameter 'severity' is 9"):
        robusteval.corrupt(images, "brightness", severity=9)


class Faulty(torch.nn.Module):
    """A linear network whose logits go through a function of (input, logits)."""

    def __init__(self, fault, classes=10):
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, classes))
        self.fault = fault

    def forward(self, images):
        return self.fault(images, self.network(images))


def _dazzled(images, logits):
    if float(images.max()) > 0.8:
        raise RuntimeError("too bright")
    return logits


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            lambda images, logits: logits.masked_fill(images.mean((1, 2, 3))[:, None] > 0.5, float("nan")),
            "NaN on example 2;",
        ),
        (
            lambda images, logits: logits.masked_fill(images.mean((1, 2, 3))[:, None] > 0.5, float("-inf")),
            "infinite logits on example 2;",
        ),
        (_dazzled, "RuntimeError on example 0, 1, 2, 3: too bright"),
        (lambda images, logits: logits[:, :1], "two classes or more"),
        (lambda images, logits: logits.round().long(), "floating point"),
        (lambda images, logits: logits.to("meta"), "logits on meta for images on cpu"),
        (lambda images, logits: (logits,), r"not \(16, classes\) logits"),
    ],
)
def test_a_model_whose_answers_mean_nothing_is_refused_with_the_images_named(fault, words):
    images = torch.full((4, 3, 16, 16), 0.4)
    images[2] = 0.9
    with pytest.raises(RobustevalError, match=words):
        robusteval.attack(Faulty(fault), images, [0, 1, 2, 3], "linf-0.1", using="fgsm", device="cpu")


def test_a_model_that_remembers_is_not_attacked():
    calls: list[int] = []

    def remembering(images, logits):
        calls.append(len(images))
        return logits + len(calls) % 2

    with pytest.raises(CellError, match=r"when asked again about example 0, 1, .*it remembers what it has seen"):
        robusteval.attack(Faulty(remembering), torch.rand(4, 3, 16, 16), [0, 1, 2, 3], using="fgsm", device="cpu")


def test_a_model_without_gradients_is_refused_where_the_attack_needs_them():
    images, model = torch.rand(2, 3, 16, 16), Faulty(lambda images, logits: logits.detach())
    with pytest.raises(CellError, match="no gradient leads from the logits of example 0"):
        robusteval.attack(model, images, [0, 1], using="fgsm", device="cpu")
    blind = Component(name="square", params={"queries": 3})
    assert len(robusteval.attack(model, images, [0, 1], using=blind, device="cpu").broken) == 2


def test_a_model_for_other_channels_is_refused_by_the_words_of_torch_and_the_images():
    with pytest.raises(CellError, match=r"raised RuntimeError on example 0, 1: .*shapes cannot be multiplied"):
        robusteval.attack(Faulty(lambda images, logits: logits), torch.rand(2, 1, 16, 16), [0, 1], device="cpu")


@pytest.mark.parametrize(
    ("labels", "words"),
    [([0.5, 1.0], "labels of image 0 are no whole numbers"), (["a", "b"], "number of a class for each image")],
)
def test_a_label_is_the_number_of_a_class(network, pixels, labels, words):
    with pytest.raises(UsageError, match=words):
        robusteval.attack(network, pixels[0][:2], labels)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"threat": None}, "write norm and radius"),
        ({"using": {"name": "pgd"}}, "give the name of an attack"),
        ({"means": (0.5,)}, "declared by mean, std and value_range"),
    ],
)
def test_an_argument_of_another_kind_is_refused_by_name(network, pixels, arguments, words):
    with pytest.raises(UsageError, match=words):
        robusteval.attack(network, pixels[0][:2], pixels[1][:2], **arguments)
