"""Cheap checks of what a model answers: outputs that are no logits, that change, or that hide their input's changes.

Each check looks at a few fixed images and answers with a flag that carries its numbers. Nothing is traced and no global
state is changed: random number generators are put back, and buffers are the business of `Classifier.frozen`.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from robusteval.attacks.symptoms import NAN_LOGITS
from robusteval.data.batches import Batch
from robusteval.data.randomness import keyed_uniform
from robusteval.models.classifier import Classifier
from robusteval.schema.records import Flag

ALONE = 8
"""Of the checked images, how many are also predicted one by one."""
LOGIT_TOLERANCE = 1e-4
"""Difference of two logits, relative to the largest one, from which they count as different."""
SHARE = 0.1
"""Share of the checked images, rounded up to at least two, that a symptom must reach."""
NOISE = 5e-5
"""Noise that a model must notice: far below one of 255 levels, far above the rounding of float32."""
LOUD_NOISE = 0.1
"""Noise that a model with a rounded input notices; one whose output is constant anyway does not."""
LARGE_MARGIN = 32.0
"""Margin from which a cross-entropy gradient is scaled by less than 1e-13, so that its digits are rounding."""
SMALL_SPAN = 1e-3
"""Distance of the largest to the smallest logit below which float32 margins have few digits."""


def enough(n: int) -> int:
    """Number of the `n` checked images that a symptom must reach."""
    return max(2, -int(-SHARE * n // 1))


def output_flags(model: Classifier, batch: Batch, seed: int) -> tuple[Flag, ...]:
    """Run every check of the output. At most 5 passes an image, and `ALONE` more.

    Args:
        model: the classifier, frozen.
        batch: correctly classified examples, at least one.
        seed: evaluation seed.

    Returns:
        Flags; a single one of code `nan-logits` if the model answers with NaN.
    """
    answers = _observe(model, batch.images)
    undefined = answers.first.isnan().any(dim=1) | answers.second.isnan().any(dim=1)
    if bool(undefined.any()):
        return (_nan_logits(int(undefined.sum()), len(batch)),)
    flags = [*_train_mode(model), *_softmax_output(answers.first), *_dynamic(answers), *_randomised(answers)]
    if answers.again is None:
        flags += _batch_dependent(model, batch, answers.first)
        flags += _quantised(model, batch, answers.first, seed)
    flags += _logit_scale(answers.first)
    return tuple(flags)


@dataclass(frozen=True)
class _Answers:
    """What a model does when it is asked the same question again.

    Attributes:
        first: (B, K) logits.
        second: (B, K) logits of the next pass.
        again: (B, K) logits of a later pass with the random numbers of the first, of two the one that differs more;
            None if the first two passes are equal.
        buffers: names of buffers that a pass changed.
        differentiates: whether a pass computes gradients by itself.
    """

    first: Tensor
    second: Tensor
    again: Tensor | None
    buffers: tuple[str, ...]
    differentiates: bool


class _GradientWatch(TorchFunctionMode):
    """Notices whether anything inside runs with gradients switched on; only for code that is called without."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen |= torch.is_grad_enabled()
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def _observe(model: Classifier, images: Tensor) -> _Answers:
    before = [(name, buffer, buffer.clone()) for name, buffer in model.named_buffers()]
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _other_generators_kept():
        draws = torch.get_rng_state(), [torch.cuda.get_rng_state(device) for device in devices]
        others = random.getstate(), np.random.get_state()
        watch = _GradientWatch()
        with watch:
            first = model(images)
        changed = tuple(name for name, buffer, content in before if not torch.equal(buffer, content))
        second, again = model(images), None
        if _relative_difference(first, second) > LOGIT_TOLERANCE:
            # Twice, an even and an odd number of passes after the first: what alternates is the same every other time.
            for _ in range(2):
                torch.set_rng_state(draws[0])
                for device, state in zip(devices, draws[1], strict=True):
                    torch.cuda.set_rng_state(state, device)
                random.setstate(others[0])
                np.random.set_state(others[1])
                found = model(images)
                if again is None or _relative_difference(first, found) > _relative_difference(first, again):
                    again = found
    return _Answers(first, second, again, changed, watch.seen)


@contextlib.contextmanager
def _other_generators_kept() -> Iterator[None]:
    states = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _nan_logits(count: int, n: int) -> Flag:
    return Flag(
        code=NAN_LOGITS,
        severity="error",
        evidence=f"NaN logits on {count} of {n} clean images",
        next_step="make the model answer with finite logits on every image in [0, 1]",
    )


def _relative_difference(first: Tensor, second: Tensor) -> float:
    scale = first.abs().amax().clamp_min(1e-12)
    return float((first - second).abs().amax() / scale)


def _train_mode(model: Classifier) -> Iterator[Flag]:
    training = [name or "the model" for name, module in model.named_modules() if module.training]
    if training:
        yield Flag(
            code="train-mode-left-on",
            severity="error",
            evidence=f"{len(training)} modules are in training mode after eval() and a pass: {', '.join(training[:3])}",
            next_step="let train(False) reach every module, and call no train() in forward; dropout and batch norm "
            "answer otherwise in training mode",
        )


def _softmax_output(logits: Tensor) -> Iterator[Flag]:
    sums = logits.sum(dim=1)
    inside = bool(((logits >= -1e-5) & (logits <= 1 + 1e-5)).all())
    if inside and bool(((sums - 1).abs() < 1e-4).all()):
        yield Flag(
            code="softmax-output",
            severity="warning",
            evidence=f"all {len(logits)} outputs lie in [0, 1] and sum to 1, to {float((sums - 1).abs().amax()):.1e}",
            next_step="return logits instead of probabilities: their gradients vanish where the model is sure",
        )


def _dynamic(answers: _Answers) -> Iterator[Flag]:
    """The model does more than map an image to logits: it remembers, or optimises while it answers."""
    seen = []
    if answers.differentiates:
        seen.append(f"a pass over {len(answers.first)} images without gradients switches them on and computes some")
    if answers.buffers:
        seen.append(
            f"a pass in evaluation mode changes {len(answers.buffers)} buffers: {', '.join(answers.buffers[:3])}"
        )
    if answers.again is not None:
        difference = _relative_difference(answers.first, answers.again)
        if difference > LOGIT_TOLERANCE:
            seen.append(
                f"a pass over the same {len(answers.first)} images with the same random numbers differs by "
                f"{difference:.2g} of the largest logit"
            )
    if seen:
        yield Flag(
            code="dynamic-output",
            severity="error" if answers.again is not None or answers.buffers else "warning",
            evidence="; ".join(seen),
            next_step="measure the network without what adapts at test time, or with an attack made for it; the "
            "gradients here are not those of what answers",
        )


def _randomised(answers: _Answers) -> Iterator[Flag]:
    """Answers that differ from call to call, and are the same again with the same random numbers."""
    if answers.again is None:
        return
    if _relative_difference(answers.first, answers.again) > LOGIT_TOLERANCE:
        return
    difference = _relative_difference(answers.first, answers.second)
    changed = int((answers.first.argmax(dim=1) != answers.second.argmax(dim=1)).sum())
    yield Flag(
        code="randomised-output",
        severity="warning",
        evidence=f"two passes over the same {len(answers.first)} images differ by {difference:.2g} of the largest "
        f"logit, {changed} predictions change",
        next_step="use autoattack with version: rand, and report the spread over several seeds",
    )


def _batch_dependent(model: Classifier, batch: Batch, logits: Tensor) -> Iterator[Flag]:
    with torch.no_grad():
        alone = torch.cat([model(batch.images[i : i + 1]) for i in range(min(ALONE, len(batch)))])
    difference = _relative_difference(logits[: len(alone)], alone)
    if difference > LOGIT_TOLERANCE:
        yield Flag(
            code="batch-dependent-output",
            severity="error",
            evidence=f"logits of {len(alone)} images alone and in a batch of {len(batch)} differ by "
            f"{difference:.2g} of the largest logit",
            next_step="make predictions independent of the rest of the batch, such as batch norm in evaluation mode",
        )


@torch.no_grad()
def _quantised(model: Classifier, batch: Batch, logits: Tensor, seed: int) -> Iterator[Flag]:
    """Bitwise the same logits for slightly different images, though larger differences change them."""

    def answered(size: float) -> Tensor:
        shape = tuple(batch.images.shape[1:])
        draw = keyed_uniform(batch.keys, shape, seed=seed, purpose="output check").to(batch.images.dtype)
        logits: Tensor = model((batch.images + (2.0 * draw - 1.0) * size).clamp(0.0, 1.0))
        return logits

    deaf = (answered(NOISE) == logits).all(dim=1)
    if int(deaf.sum()) * 2 < len(batch):
        return
    moved = (answered(LOUD_NOISE) != logits).any(dim=1)
    if int(moved.sum()) * 2 >= len(batch):
        yield Flag(
            code="quantised-input",
            severity="warning",
            evidence=f"noise of {NOISE:g} leaves every logit of {int(deaf.sum())} of {len(batch)} images bitwise the "
            f"same, noise of {LOUD_NOISE:g} changes those of {int(moved.sum())}",
            next_step="the input is rounded, so its gradient is zero or made up; attack the network behind the "
            "rounding and verify on the whole (BPDA), or use square",
        )


def _logit_scale(logits: Tensor) -> Iterator[Flag]:
    largest = logits.topk(2, dim=1).values
    margin = largest[:, 0] - largest[:, 1]
    span = logits.amax(dim=1) - logits.amin(dim=1)
    saturated, flat = int((margin > LARGE_MARGIN).sum()), int((span < SMALL_SPAN).sum())
    if saturated >= min(enough(len(logits)), len(logits)):
        yield Flag(
            code="logit-scale",
            severity="warning",
            evidence=f"margins of {saturated} of {len(logits)} images exceed {LARGE_MARGIN:g} (median "
            f"{float(margin.median()):.3g}), so their cross-entropy gradients are scaled by less than 1e-13",
            next_step="attack with a loss that does not saturate: apgd-dlr, or pgd with loss=margin",
        )
    elif flat >= min(enough(len(logits)), len(logits)):
        yield Flag(
            code="logit-scale",
            severity="warning",
            evidence=f"logits of {flat} of {len(logits)} images lie within {SMALL_SPAN:g} of each other (median span "
            f"{float(span.median()):.2g}), so that float32 margins have few digits",
            next_step="return logits before they are scaled down, or use a loss that divides the scale out: apgd-dlr",
        )
