"""What attacks raise: one loss an example, from logits (J, K) and labels (J,).

DLR and its targeted form: Croce and Hein, ICML 2020, arXiv 2003.01690. With logits z_1 >= z_2 >= ...:

    CE          -log softmax(z)_y
    margin      max_{i != y} z_i - z_y
    DLR         (max_{i != y} z_i - z_y) / (z_1 - z_3)
    DLR, target (z_t - z_y) / (z_1 - (z_3 + z_4) / 2)

CE stands still once the softmax saturates and changes with the scale of the logits; DLR changes with neither scale nor
offset of the logits.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from robusteval.attacks.gradient import cross_entropy, negative_margin

__all__ = [
    "DLR_CLASSES",
    "TARGETED_DLR_CLASSES",
    "cross_entropy",
    "dlr",
    "negative_margin",
    "targeted_dlr",
    "targeted_margin",
    "targeted_objective",
    "untargeted_dlr_objective",
]

TargetedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps logits (J, K), labels (J,) and target classes (J,) to losses (J,) that the attacker wants to raise."""

DLR_CLASSES = 3
"""Fewest classes for which DLR is defined: it divides by the distance to the third largest logit."""
TARGETED_DLR_CLASSES = 4
"""Fewest classes for which targeted DLR is defined."""
_SMALLEST_SCALE = 1e-12


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio, (J,), at least -1; positive once the example is broken. Needs 3 classes."""
    largest = logits.topk(DLR_CLASSES, dim=1).values
    return negative_margin(logits, labels) / (largest[:, 0] - largest[:, 2] + _SMALLEST_SCALE)


def targeted_margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Logit of the target minus the label's, (J,)."""
    return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Targeted difference of logits ratio, (J,); positive once the target beats the label. Needs 4 classes."""
    largest = logits.topk(TARGETED_DLR_CLASSES, dim=1).values
    scale = largest[:, 0] - 0.5 * (largest[:, 2] + largest[:, 3])
    return targeted_margin(logits, labels, targets) / (scale + _SMALLEST_SCALE)


def untargeted_dlr_objective(logits: Tensor, labels: Tensor) -> Tensor:
    """DLR, or the margin where there are too few classes for it."""
    return (dlr if logits.shape[1] >= DLR_CLASSES else negative_margin)(logits, labels)


def targeted_objective(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Targeted DLR, or the targeted margin where there are too few classes for it."""
    return (targeted_dlr if logits.shape[1] >= TARGETED_DLR_CLASSES else targeted_margin)(logits, labels, targets)
