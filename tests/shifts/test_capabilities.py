"""One row a shift; every property is tested for every row."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from robusteval.schema.errors import CellError, UsageError
from robusteval.schema.types import Component
from robusteval.shifts import SHIFTS
from robusteval.shifts.base import Shift, build_shift, resolve_shift
from robusteval.shifts.corruption import Corruption
from robusteval.shifts.tables import COMMON, CONSTANTS, TABLE, VALIDATION


@dataclass(frozen=True)
class Row:
    """What one shift must do.

    Attributes:
        name: registered name.
        random: whether another seed or key gives another image.
        preset: whether it takes published constants.
        back: per preset, the severities after which the published constants bring images back towards the clean ones.
        even: per preset, the severities after which it depends on the images, by a tenth either way at most.

    The numbers beside `back` and `even` are mean squared errors in grey levels squared for severities 1 to 5, of 192
    test images of CIFAR-10 at 32 pixels, then of PACS photos at 64 and at 112 pixels.
    """

    name: str
    random: bool = False
    preset: bool = True
    back: tuple[tuple[str, tuple[int, ...]], ...] = ()
    even: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def component(self, preset: str = "cifar10-c", **params: Any) -> Component:
        chosen = {"preset": preset, **params} if self.preset else params
        return Component(name=self.name, params=chosen)


RANDOM = {"random": True}
TABLE_OF_SHIFTS = [
    Row("gaussian_noise", **RANDOM),
    Row("shot_noise", **RANDOM),
    Row("impulse_noise", **RANDOM),
    Row("speckle_noise", **RANDOM),
    Row("gaussian_blur"),
    Row("defocus_blur"),
    # The deviation of the Gaussian falls where a pass is added.
    # 447 436 373 915 794; 487 336 644 575 909; 413 385 866 764 871.
    Row("glass_blur", True, back=(("cifar10-c", (1, 2, 4)), ("tiny-imagenet-c", (1, 3)), ("imagenet-c", (1, 3)))),
    # The deviation stays 2 and only the cut-off moves from 6 to 8 pixels. 123 252 386 387 509.
    Row("motion_blur", True, even=(("cifar10-c", (3,)),)),
    Row("zoom_blur"),
    Row("snow", **RANDOM),
    # The image is weighted less under the same frost, so that bright images come back. 1090 2355 3180 2571 2597 at 32
    # pixels, 4099 5841 8067 7467 8143 at 112.
    Row("frost", True, back=(("cifar10-c", (3,)), ("imagenet-c", (3,))), even=(("cifar10-c", (4,)),)),
    # The amount stays 2.5 and the cloud gets rougher. 2464 2957 3596 3562 4082.
    Row("fog", True, even=(("imagenet-c", (3,)),)),
    Row("brightness"),
    Row("contrast"),
    # Two severities take saturation away before three add it.
    # 458 761 195 996 2010; 441 733 603 3175 5451; 435 722 596 3268 5432.
    Row("saturate", back=tuple((preset, (2,)) for preset in CONSTANTS)),
    # The affine map gets weaker from one severity to the next.
    # 1184 995 784 682 456; 2255 1581 1627 877 753; 4483 5974 1494 1445 1590.
    Row(
        "elastic_transform",
        True,
        back=(("cifar10-c", (1, 2, 3, 4)), ("tiny-imagenet-c", (1, 3, 4)), ("imagenet-c", (2,))),
        even=(("tiny-imagenet-c", (2,)), ("imagenet-c", (3,))),
    ),
    Row("pixelate"),
    Row("jpeg_compression"),
    # Water turns to mud, which covers less. 64 170 368 327 545.
    Row("spatter", True, back=(("cifar10-c", (3,)),)),
    Row("channel-statistics", True, preset=False),
    Row("sketch", preset=False),
    Row("posterise", preset=False),
    Row("colour-cast", True, preset=False),
]
ROWS = pytest.mark.parametrize("row", TABLE_OF_SHIFTS, ids=lambda row: row.name)


def shift_of(row: Row, **params: Any) -> Shift[Any]:
    return build_shift(row.component(**params))


def keys_of(images: Tensor) -> Tensor:
    return torch.arange(len(images)) * 7919 - 17


def test_every_registered_shift_has_a_row() -> None:
    assert sorted(row.name for row in TABLE_OF_SHIFTS) == SHIFTS.names()
    assert {row.name for row in TABLE_OF_SHIFTS if row.preset} == {*COMMON, *VALIDATION}


@ROWS
def test_an_example_is_the_same_in_every_batch(row: Row, small_scenes: Tensor) -> None:
    """Batches of 1, 7 and 64, and another order."""
    shift, keys = shift_of(row), keys_of(small_scenes)
    whole = shift(small_scenes, keys=keys, seed=3)
    for size in (1, 7):
        parts = [
            shift(small_scenes[start : start + size], keys=keys[start : start + size], seed=3)
            for start in range(0, 28, size)
        ]
        assert torch.equal(torch.cat(parts), whole[:28])
    order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(0))
    assert torch.equal(shift(small_scenes[order], keys=keys[order], seed=3), whole[order])


@ROWS
def test_sides_that_differ_and_divide_by_nothing_work_in_every_batch(row: Row, large_scenes: Tensor) -> None:
    images = large_scenes[:, :, 20:77, 30:121]
    shift, keys = shift_of(row, preset="tiny-imagenet-c"), keys_of(images)
    whole = shift(images, keys=keys, seed=3)
    assert whole.shape == images.shape
    alone = [shift(images[place : place + 1], keys=keys[place : place + 1], seed=3) for place in (2, 0, 1)]
    assert torch.equal(torch.cat(alone), whole[[2, 0, 1]])


@ROWS
def test_the_number_of_threads_changes_nothing(row: Row, large_scenes: Tensor) -> None:
    images, shift = large_scenes[:1], shift_of(row, preset="imagenet-c")
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(shift(images, keys=keys_of(images), seed=0))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


@ROWS
def test_images_stay_as_they_are_and_bytes_come_out(row: Row, small_scenes: Tensor) -> None:
    images = small_scenes[:3].clone()
    found = shift_of(row, severity=5)(images, keys=keys_of(images), seed=0)
    assert torch.equal(images, small_scenes[:3])
    assert (found.dtype, found.shape) == (torch.uint8, images.shape)
    assert not torch.equal(found, images)


@ROWS
def test_only_a_random_shift_depends_on_seed_and_key(row: Row, small_scenes: Tensor) -> None:
    images, shift = small_scenes[:4], shift_of(row, severity=5)
    base = shift(images, keys=keys_of(images), seed=0)
    assert shift.random is row.random
    assert torch.equal(base, shift(images, keys=keys_of(images), seed=1)) is not row.random
    assert torch.equal(base, shift(images, keys=keys_of(images) + 1, seed=0)) is not row.random


@ROWS
@pytest.mark.parametrize("preset", CONSTANTS)
def test_error_grows_with_severity_except_where_the_published_constants_turn_back(
    row: Row, preset: str, scenes_of: dict[str, Tensor]
) -> None:
    if not row.preset and preset != "cifar10-c":
        pytest.skip("takes no preset")
    images = scenes_of[preset]
    errors = []
    for severity in range(1, 6):
        found = shift_of(row, preset=preset, severity=severity)(images, keys=keys_of(images), seed=0)
        errors.append(float((found.float() - images.float()).square().mean()))
    even = dict(row.even).get(preset, ())
    steps = {severity: stronger / weaker for severity, (weaker, stronger) in enumerate(pairwise(errors), start=1)}
    falling = {severity for severity, growth in steps.items() if growth <= 1.0}
    assert falling - set(even) == set(dict(row.back).get(preset, ())), errors
    assert all(0.9 < steps[severity] < 1.11 for severity in even), errors


@ROWS
def test_resolved_parameters_are_complete_and_resolve_to_themselves(row: Row) -> None:
    resolved = resolve_shift(row.component())
    assert resolve_shift(resolved) == resolved
    assert resolved.params["severity"] == 3
    if row.preset:
        assert resolved.params["table"] == TABLE
    assert build_shift(resolved).domain == f"{row.name}-3"


@ROWS
def test_a_severity_out_of_range_is_one_line(row: Row) -> None:
    with pytest.raises(UsageError, match=f"shift '{row.name}': parameter 'severity' is 6") as error:
        shift_of(row, severity=6)
    assert "\n" not in str(error.value)


def test_a_corruption_without_a_preset_is_refused() -> None:
    with pytest.raises(UsageError, match="shift 'fog': parameter 'preset' is missing"):
        build_shift(Component(name="fog"))


def test_a_record_of_other_constants_is_not_replayed() -> None:
    with pytest.raises(UsageError, match=f"this version corrupts with table '{TABLE}'"):
        build_shift(Component(name="fog", params={"preset": "cifar10-c", "table": "0123456789ab"}))


@pytest.mark.parametrize(
    ("images", "keys", "message"),
    [
        (torch.zeros(2, 1, 32, 32, dtype=torch.uint8), torch.arange(2), "repeat a grey channel"),
        (torch.zeros(2, 3, 32, 32), torch.arange(2), "uint8"),
        (torch.zeros(2, 3, 4, 32, dtype=torch.uint8), torch.arange(2), "8 pixels a side"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.arange(3), "keys"),
    ],
)
def test_inputs_that_are_no_byte_images_are_refused(images: Tensor, keys: Tensor, message: str) -> None:
    with pytest.raises(CellError, match=message):
        build_shift(Component(name="contrast", params={"preset": "cifar10-c"}))(images, keys=keys, seed=0)


def test_an_empty_batch_stays_empty(small_scenes: Tensor) -> None:
    shift = build_shift(Component(name="fog", params={"preset": "cifar10-c"}))
    assert shift(small_scenes[:0], keys=torch.arange(0), seed=0).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("name", [*COMMON, *VALIDATION])
def test_fast_is_replay_to_the_bit(name: str, large_scenes: Tensor) -> None:
    images = large_scenes[:2, :, :90, :100]
    replay, fast = (
        build_shift(Component(name=name, params={"preset": "imagenet-c", "mode": mode}))(
            images, keys=keys_of(images), seed=0
        )
        for mode in ("replay", "fast")
    )
    assert torch.equal(replay, fast)


def test_corruptions_agree_on_their_names() -> None:
    for name in (*COMMON, *VALIDATION):
        kind = SHIFTS.load(name)
        assert issubclass(kind, Corruption)
        assert kind.name == name
