"""Cheap checks of what a model answers: outputs that are no logits, that change, or that hide their input's changes.

Each check looks at a few fixed images and answers with a flag that carries its numbers. Nothing is traced and no global
state is changed: random number generators are put back, and buffers are the business of `Classifier.frozen`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from robusteval.attacks.symptoms import NAN_LOGITS
from robusteval.data.batches import Batch
from robusteval.data.randomness import keyed_uniform
from robusteval.evaluators.repetition import (
    LOGIT_TOLERANCE,
    Repetition,
    ask_again,
    generators_kept,
    relative_difference,
)
from robusteval.models.classifier import Classifier
from robusteval.schema.records import Flag

ALONE = 8
"""Of the checked images, how many are also predicted one by one."""
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
    found = answers.found
    undefined = found.first.isnan().any(dim=1) | found.second.isnan().any(dim=1)
    if bool(undefined.any()):
        return (_nan_logits(int(undefined.sum()), len(batch)),)
    flags = [*_train_mode(model), *_softmax_output(found.first), *_dynamic(answers), *_randomised(found)]
    if found.again is None:
        flags += _batch_dependent(model, batch, found.first)
        flags += _quantised(model, batch, found.first, seed)
    flags += _logit_scale(found.first)
    return tuple(flags)


@dataclass(frozen=True)
class _Answers:
    """What a model does when it is asked the same question again.

    Attributes:
        found: what it answers.
        buffers: names of buffers that a pass changed.
        differentiates: whether a pass computes gradients by itself.
    """

    found: Repetition
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
    with generators_kept(images.device) as draws:
        watch = _GradientWatch()
        with watch:
            first = model(images)
        changed = tuple(name for name, buffer, content in before if not torch.equal(buffer, content))
        found = ask_again(model, first, images, draws)
    return _Answers(found, changed, watch.seen)


def _nan_logits(count: int, n: int) -> Flag:
    return Flag(
        code=NAN_LOGITS,
        severity="error",
        evidence=f"NaN logits on {count} of {n} clean images",
        next_step="make the model answer with finite logits on every image in [0, 1]",
    )


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
    seen, found = [], answers.found
    if answers.differentiates:
        seen.append(f"a pass over {len(found.first)} images without gradients switches them on and computes some")
    if answers.buffers:
        seen.append(
            f"a pass in evaluation mode changes {len(answers.buffers)} buffers: {', '.join(answers.buffers[:3])}"
        )
    if found.again is not None and found.remembers:
        seen.append(
            f"a pass over the same {len(found.first)} images with the same random numbers differs by "
            f"{relative_difference(found.first, found.again):.2g} of the largest logit"
        )
    if seen:
        yield Flag(
            code="dynamic-output",
            severity="error" if found.again is not None or answers.buffers else "warning",
            evidence="; ".join(seen),
            next_step="measure the network without what adapts at test time, or with an attack made for it; the "
            "gradients here are not those of what answers",
        )


def _randomised(found: Repetition) -> Iterator[Flag]:
    """Answers that differ from call to call, and are the same again with the same random numbers."""
    if found.again is None or found.remembers:
        return
    difference = relative_difference(found.first, found.second)
    changed = int((found.first.argmax(dim=1) != found.second.argmax(dim=1)).sum())
    yield Flag(
        code="randomised-output",
        severity="warning",
        evidence=f"two passes over the same {len(found.first)} images differ by {difference:.2g} of the largest "
        f"logit, {changed} predictions change",
        next_step="use autoattack with version: rand, and report the spread over several seeds",
    )


def _batch_dependent(model: Classifier, batch: Batch, logits: Tensor) -> Iterator[Flag]:
    with torch.no_grad():
        alone = torch.cat([model(batch.images[i : i + 1]) for i in range(min(ALONE, len(batch)))])
    difference = relative_difference(logits[: len(alone)], alone)
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
