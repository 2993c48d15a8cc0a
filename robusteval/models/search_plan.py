"""What a search on a faster form of a network runs on, in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["exact", "fast"]


@dataclass(frozen=True)
class SearchPlan:
    """What a search runs on.

    Attributes:
        asked: precision asked for.
        precision: precision used.
        reason: why `fast` fell back to `exact`; empty if it did not.
        copied: whether a copy is used at all, or the original network.
        folded: batch norms folded into convolutions.
        batch_norms: batch norms of the original network.
        unfolded: why batch norms that could be folded are not, or why there is no copy; empty if neither.
        memory_format: `channels_last` or `contiguous`.
        fused: whether convolutions, sums and ReLUs that follow each other are one step.
        dtype: type of weights and activations, such as `bfloat16`.
        logit_error: largest difference of the float32 form from the original, relative to the root mean square logit.
        low_error: root mean square error of low-precision logits against the float32 form, in logits; 0 if exact.
        sign_disagreement: share of the signs of the margin's input gradient that low precision gets wrong; 0 if exact.
    """

    asked: Precision
    precision: Precision
    reason: str
    copied: bool
    folded: int
    batch_norms: int
    unfolded: str
    memory_format: Literal["channels_last", "contiguous"]
    fused: bool
    dtype: str
    logit_error: float
    low_error: float = 0.0
    sign_disagreement: float = 0.0
