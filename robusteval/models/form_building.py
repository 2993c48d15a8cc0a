"""Faster forms of a classifier, and the measurements that admit them.

A form that differs from the original by more than rounding is not used: the original takes its place, and the plan says
why.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from robusteval.models.classifier import Classifier
from robusteval.models.folding import batch_norms, fold_batch_norms
from robusteval.models.fusion import finish_in_float32, fuse_convolutions, steady_linears
from robusteval.models.low_precision import low_dtype, lower, measure
from robusteval.models.search_plan import SearchPlan

LOGIT_TOLERANCE = 1e-4
"""Difference of a logit from the original's, relative to the root mean square logit, up to which it is rounding."""

RELATIVE_ERROR_LIMIT = 0.1
"""Root mean square error of low-precision logits, relative to the root mean square logit, above which search is exact.
Measured: 0.011 for an undefended ResNet-20."""

SIGN_LIMIT = 0.15
"""Share of wrong gradient signs above which search is exact. Measured: 0.06 for an undefended ResNet-20; for the
cross-entropy 0.03 for an adversarially trained ResNet-20 and 0.14 for a random WideResNet-28-4."""

PROBES = 32
"""Images that the self-test of low precision sees: 100,000 gradient components at 32 pixels, for 128 passes."""

# What a copy may raise where the original does not: code that looks into the modules that were replaced, tensors that
# cannot be copied, operations that low precision lacks.
REFUSALS = (RuntimeError, TypeError, ValueError, AttributeError)


class Cast(nn.Module):
    """A network behind a change of type and memory layout; its logits come back in the type of the input.

    Autocast is off inside, so that a form is what its plan says wherever it is called from.

    Args:
        network: maps (B, C, H, W) in `dtype` to logits (B, K).
        dtype: type the network computes in; by default that of its input.
        channels_last: whether the input is laid out with the channels innermost.
    """

    def __init__(self, network: nn.Module, *, dtype: torch.dtype | None, channels_last: bool) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype
        self.channels_last = channels_last

    def forward(self, normalised: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, C, H, W)."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        with torch.autocast(normalised.device.type, enabled=False):
            logits: Tensor = self.network(normalised.to(self.dtype or normalised.dtype, memory_format=layout))
            return logits.to(normalised.dtype)


class Measured(NamedTuple):
    """An exact form as it is lowered, as it is searched with, and what was measured about it."""

    plain: Classifier
    form: Classifier
    plan: SearchPlan


def twin(classifier: Classifier, network: nn.Module) -> Classifier:
    """A frozen classifier around `network` with the contract, the normalisation and the pass counter of another."""
    other = Classifier(
        network,
        classes=classifier.classes,
        input_shape=classifier.input_shape,
        mean=[0.0] * classifier.input_shape[0],
        std=[1.0] * classifier.input_shape[0],
    )
    other.mean, other.std, other.passes = classifier.mean, classifier.std, classifier.passes
    return other.eval().requires_grad_(False)


def channels_last_pays(network: nn.Module) -> bool:
    """Whether the channels belong innermost: where there are convolutions to profit."""
    return any(isinstance(module, nn.Conv2d) for module in network.modules())


@torch.no_grad()
def exact_form(classifier: Classifier, images: Tensor) -> Measured:
    """The fastest copy whose logits on `images` are the original's up to rounding, else the original."""
    norms = batch_norms(classifier)
    plan = SearchPlan(
        asked="exact",
        precision="exact",
        reason="",
        copied=False,
        folded=0,
        batch_norms=norms,
        unfolded="",
        memory_format="contiguous",
        fused=False,
        dtype=str(classifier.mean.dtype).removeprefix("torch."),
        logit_error=0.0,
    )
    expected = classifier(images)
    failures = []
    for fold in (True, False) if norms else (False,):
        try:
            plain, folded = _copied(classifier, images, fold=fold)
            form, error = _fastest(plain, images, expected)
        except torch.cuda.OutOfMemoryError:
            raise
        except REFUSALS as refusal:
            failures.append(f"{'folding' if fold else 'copying'} fails: {_first_line(refusal)}")
            continue
        if error <= LOGIT_TOLERANCE:
            layout: Literal["channels_last", "contiguous"]
            layout = "channels_last" if _cast(form).channels_last else "contiguous"
            plan = replace(plan, copied=True, folded=folded, logit_error=error, unfolded="; ".join(failures))
            return Measured(plain, form, replace(plan, memory_format=layout, fused=form is not plain))
        failures.append(f"{'folded' if fold else 'copied'} logits differ by {error:.2g} of the logit scale")
    return Measured(classifier, classifier, replace(plan, unfolded="; ".join(failures)))


def _fastest(plain: Classifier, images: Tensor, expected: Tensor) -> tuple[Classifier, float]:
    """The fused form where it computes the expected logits, else the plain one; and the error of its logits."""
    try:
        form = _fused(plain, images)
        steady_linears(form)
        if (error := _relative_error(form(images), expected)) <= LOGIT_TOLERANCE:
            return form, error
    except REFUSALS:
        # Fusing is for speed alone: whatever stands in its way, the plain form computes the same.
        pass
    return plain, _relative_error(plain(images), expected)


def _copied(classifier: Classifier, images: Tensor, *, fold: bool) -> tuple[Classifier, int]:
    if type(classifier) is not Classifier:
        raise TypeError(f"{type(classifier).__name__} may do more than its network")
    network = copy.deepcopy(classifier.network)
    layout = channels_last_pays(network)
    if layout:
        network = network.to(memory_format=torch.channels_last)
    form = twin(classifier, Cast(network, dtype=None, channels_last=layout))
    return form, fold_batch_norms(form, images) if fold else 0


def _cast(form: Classifier) -> Cast:
    assert isinstance(form.network, Cast)
    return form.network


@torch.no_grad()
def _fused(form: Classifier, images: Tensor) -> Classifier:
    """The same form with fused convolutions; its logits have not been compared yet.

    Raises:
        ValueError: nothing can be fused; tracing and running raise the other `REFUSALS`.
    """
    plain = _cast(form)
    if images.device.type != "cpu" or not plain.channels_last or form.mean.dtype != torch.float32:
        raise ValueError("only float32 convolutions on a CPU are fused")
    form.passes.forward += 1
    one = form.normalise(images[:1]).to(plain.dtype or images.dtype, memory_format=torch.channels_last)
    network = fuse_convolutions(copy.deepcopy(plain.network), one)
    return twin(form, Cast(network, dtype=plain.dtype, channels_last=True))


def _lowered(exact: Classifier, dtype: torch.dtype) -> Classifier:
    cast = _cast(exact)
    return twin(exact, Cast(lower(cast.network, dtype), dtype=dtype, channels_last=cast.channels_last))


def _relative_error(logits: Tensor, expected: Tensor) -> float:
    scale = expected.square().mean().sqrt().clamp(min=1e-12)
    return float((logits - expected).abs().max() / scale)


def fast_form(measured: Measured, images: Tensor) -> tuple[Classifier, SearchPlan]:
    """The low-precision copy of the exact form, or the exact form where it would mislead or not help."""
    plain, exact, plan = measured
    fallen = replace(plan, asked="fast")
    dtype, reason = low_dtype(plain.device)
    if dtype is None or not plan.copied or plain.mean.dtype != torch.float32:
        return exact, replace(fallen, reason=reason or "the network is used as it is, in its own type")
    try:
        form = _lowered(plain, dtype)
        if plan.fused:
            form = _fused(form, images)
            finish_in_float32(_cast(form).network, _cast(plain).network)
            steady_linears(form)
        error, relative, signs = measure(exact, form, images)
    except torch.cuda.OutOfMemoryError:
        raise
    except REFUSALS as refusal:
        return exact, replace(fallen, reason=f"the network does not run in low precision: {_first_line(refusal)}")
    found = f"root mean square logit error {relative:.2g} of the scale, {signs:.1%} of the gradient signs wrong"
    if not (relative <= RELATIVE_ERROR_LIMIT and signs <= SIGN_LIMIT):
        return exact, replace(fallen, reason=f"low precision misleads: {found}")
    name = str(dtype).removeprefix("torch.")
    return form, replace(fallen, precision="fast", dtype=name, low_error=error, sign_disagreement=signs)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
