"""Whatever is wrong with saved images, replay says so of the right example; it never believes a file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import nn

from robusteval.data.imageset import ImageSet
from robusteval.evaluators.image_parts import About, SavedImage, encode_part
from robusteval.evaluators.replaying import Replayer
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import CorruptRecordError
from robusteval.schema.records import Bits, Evaluation, Metric
from robusteval.schema.types import Epsilon, Norm, ThreatModel
from robusteval.store.columns import read_columns

THREAT = ThreatModel(norm=Norm.LINF, epsilon=Epsilon("8/255"))
CLEAN, BROKEN = [True, True, True, True, False], (1, 2)


class FirstPixel(nn.Module):
    """Class 1 where the first pixel is brighter than level 104."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        above = images.flatten(1)[:, :1] - 104.2 / 255
        return torch.cat([-above, above], dim=1)


@pytest.fixture
def model() -> Classifier:
    return Classifier(FirstPixel(), classes=2, input_shape=(1, 2, 2), mean=[0.0], std=[1.0]).eval()


@pytest.fixture
def data() -> ImageSet:
    ids = tuple(f"upright/{index}" for index in range(5))
    return ImageSet(
        images=np.full((5, 1, 2, 2), 100, dtype=np.uint8),
        labels=np.array([0, 0, 0, 0, 1]),
        ids=ids,
        groups=ids,
        domains=("upright",) * 5,
        classes=("dark", "bright"),
    )


def evaluation() -> Evaluation:
    after = [right and index not in BROKEN for index, right in enumerate(CLEAN)]
    return Evaluation(
        metrics=(Metric(name="robust_accuracy", value=0.4, n=5),),
        outcomes={"clean": Bits.pack(CLEAN), "pgd": Bits.pack(after), "robust": Bits.pack(after)},
        domains=(("upright", 5),),
    )


def levels(value: int, stage: int = 0) -> SavedImage:
    return SavedImage(stage, np.full((1, 2, 2), value, dtype=np.uint8))


def pixels(value: float) -> SavedImage:
    return SavedImage(0, np.full((1, 2, 2), value, dtype=np.float32))


def about(data: ImageSet, **changes) -> About:
    return dataclasses.replace(About("0" * 64, data.ids_digest, ("pgd",), 5, (1, 2, 2)), **changes)


def replay(model, data, *parts):
    replayer = Replayer(model, data, THREAT, evaluation())
    for part in parts:
        replayer.part(part if isinstance(part, bytes) else encode_part(part, about(data)))
    return replayer.report("0" * 64)


RIGHT = {1: levels(108), 2: pixels(float(np.float32(100 / 255) + np.float32(8 / 255)))}


def test_right_images_are_verified_for_one_pass_each(model, data) -> None:
    before = model.passes.snapshot()
    found = replay(model, data, RIGHT)
    assert (found.saved, found.verified, found.rounded, found.failures) == (2, 2, 1, ())
    assert (found.threat, found.tolerance, found.device) == ("linf-8/255", pytest.approx(1e-7), "cpu")
    assert model.passes.since(before).forward == 2
    assert replay(model, data, {1: RIGHT[1]}, {2: RIGHT[2]}).failures == ()


@pytest.mark.parametrize(
    ("images", "example", "reason"),
    [
        ({**RIGHT, 1: levels(109)}, 1, "it lies 0.035294"),
        ({**RIGHT, 2: pixels(108 / 255 + 3e-7)}, 2, "outside linf-8/255"),
        ({**RIGHT, 1: levels(100)}, 1, "classifies it rightly, by a margin of 0.03"),
        ({**RIGHT, 2: pixels(104.1 / 255)}, 2, "classifies it rightly"),
        ({**RIGHT, 2: pixels(float("nan"))}, 2, "NaN or infinite"),
        ({**RIGHT, 2: pixels(float("inf"))}, 2, "NaN or infinite"),
        ({**RIGHT, 2: pixels(-0.1)}, 2, "outside [0, 1]"),
        ({**RIGHT, 2: pixels(1.0000001)}, 2, "outside [0, 1]"),
        ({1: RIGHT[1]}, 2, "no image of this broken example"),
        ({**RIGHT, 3: levels(108)}, 3, "does not count this example as broken"),
        ({**RIGHT, 4: levels(100)}, 4, "does not count this example as broken"),
    ],
)
def test_an_image_that_is_not_what_the_record_says_fails_by_name(images, example, reason, model, data) -> None:
    found = replay(model, data, images)
    assert [failure.example for failure in found.failures] == [f"upright/{example}"]
    assert reason in found.failures[0].reason
    assert found.verified == len(images) - (example in images)


def test_two_images_of_one_example_fail(model, data) -> None:
    (failure,) = replay(model, data, RIGHT, {1: RIGHT[1]}).failures
    assert failure.example == "upright/1"
    assert "second image" in failure.reason


def tampered(data, change) -> bytes:
    arrays, metadata = read_columns(encode_part({1: levels(108), 2: levels(107)}, about(data)))
    change(arrays, metadata)
    return safetensors.numpy.save({name: np.ascontiguousarray(value) for name, value in arrays.items()}, metadata)


def put(name, value):
    return lambda arrays, metadata: arrays.__setitem__(name, value)


@pytest.mark.parametrize(
    "change",
    [
        put("levels_example", np.array([1, 1])),
        put("levels_example", np.array([1, 5])),
        put("levels_example", np.array([-1, 2])),
        put("levels_example", np.array([1])),
        put("levels_example", np.array([[1, 2]])),
        put("levels_example", np.array([1.0, 2.0])),
        put("levels_stage", np.array([0, 1])),
        put("levels_stage", np.array([0, -1])),
        put("levels", np.full((2, 1, 2, 2), 108, dtype=np.int16)),
        put("levels", np.full((2, 1, 2, 3), 108, dtype=np.uint8)),
        put("levels", np.full((2, 4), 108, dtype=np.uint8)),
        put("pixels", np.zeros((1, 1, 2, 2), dtype=np.float32)),
        lambda arrays, metadata: arrays.pop("pixels"),
        lambda arrays, metadata: arrays.pop("levels_stage"),
        lambda arrays, metadata: metadata.update(ids="1" * 64),
        lambda arrays, metadata: metadata.update(format="robusteval adversarial images 2"),
        lambda arrays, metadata: metadata.update(stages='["fab"]'),
        lambda arrays, metadata: metadata.update(stages="{"),
        lambda arrays, metadata: metadata.pop("stages"),
        lambda arrays, metadata: metadata.clear(),
    ],
)
def test_a_file_that_is_not_about_this_record_is_refused(change, model, data) -> None:
    with pytest.raises(CorruptRecordError):
        replay(model, data, tampered(data, change))


@pytest.mark.parametrize("blob", [b"", b"\0" * 100, b"{}", b"\x02\0\0\0\0\0\0\0{}", b"\x05\0\0\0\0\0\0\0[1,2]"])
def test_what_is_no_file_of_images_is_refused(blob, model, data) -> None:
    with pytest.raises(CorruptRecordError):
        replay(model, data, blob)


def test_the_model_comes_out_as_it_went_in(model, data) -> None:
    model.train()
    replay(model, data, RIGHT)
    assert model.training
