"""Low-precision copies of a network: where the device gains by them, how they are made, how much they err."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from robusteval.models.classifier import Classifier


def has_onednn() -> bool:
    """Whether this build of torch computes with oneDNN on a CPU."""
    # torch has not written a type to this function.
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def low_dtype(device: torch.device) -> tuple[torch.dtype | None, str]:
    """The type to search in where a device multiplies it faster than float32, else None and the reason."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported() and torch.cuda.get_device_capability(device) >= (8, 0):
            return torch.bfloat16, ""
        return None, "this GPU does not compute in bfloat16"
    if device.type == "cpu":
        return _cpu_dtype()
    return None, f"no low precision is known to help on {device.type}"


def _cpu_dtype() -> tuple[torch.dtype | None, str]:
    # Not every version of torch has both questions; no public one says what the CPU can do.
    asked = [getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")]
    known = [question for question in asked if question is not None]
    if not known:
        return None, "this version of torch does not say whether the CPU computes in bfloat16"
    if not any(question() for question in known):
        return None, "this CPU has neither AMX nor AVX512-BF16"
    if not has_onednn():
        return None, "this build of torch lacks oneDNN, which computes in bfloat16"
    return torch.bfloat16, ""


def lower(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a network that computes in `dtype`; batch norms that are left keep float32 statistics and weights."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)
    return copied


def measure(exact: Classifier, low: Classifier, images: Tensor) -> tuple[float, float, float]:
    """How far a low-precision form is from the exact one on `images` (J, C, H, W).

    The gradient compared is that of the margin between the two largest exact logits, which does not saturate as the
    cross-entropy of a confident network does.

    Returns:
        Root mean square error of a logit; the same relative to the root mean square logit; share of wrong signs among
        the gradient's components that are not zero in the exact form. NaN where low precision overflows.
    """
    expected, gradient = _margin_gradient(exact, images, None)
    logits, lowered = _margin_gradient(low, images, expected)
    error, scale = (logits - expected).square().mean().sqrt(), expected.square().mean().sqrt()
    nonzero = gradient != 0
    wrong = (lowered.sign() != gradient.sign())[nonzero].sum() / nonzero.sum().clamp(min=1)
    return float(error), float(error / scale.clamp(min=1e-12)), float(wrong)


def _margin_gradient(form: Classifier, images: Tensor, ranking: Tensor | None) -> tuple[Tensor, Tensor]:
    leaf = images.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = form(leaf)
        best = (logits if ranking is None else ranking).topk(2, dim=1).indices
        top = logits.gather(1, best)
        (gradient,) = torch.autograd.grad((top[:, 0] - top[:, 1]).sum(), leaf)
    return logits.detach(), gradient
