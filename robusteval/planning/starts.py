"""Which file the weights of a row come from, where they do not come from another row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robusteval.planning import targets
from robusteval.schema.specs import PRETRAINED_SCHEMES, MethodSpec, WeightsSpec
from robusteval.schema.types import Component

if TYPE_CHECKING:
    from robusteval.data.imageset import Dataset

_WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".tar")


def start_path(text: str, rows: Mapping[str, Any], suite: Path) -> Path | None:
    """The file that a `start` means, relative to the suite's folder; None if it is a row or pretrained."""
    if text in rows or text.startswith(PRETRAINED_SCHEMES):
        return None
    looks_like_path = "/" in text or "\\" in text or text.lower().endswith(_WEIGHT_SUFFIXES)
    return suite.parent / text if looks_like_path else None


def is_pretrained(method: MethodSpec, rows: Mapping[str, Any], suite: Path) -> bool:
    """Whether the start has to be turned into a checkpoint of the suite's architecture first."""
    if method.start is None or method.start in rows:
        return False
    path = start_path(method.start, rows, suite)
    named = method.start.startswith(PRETRAINED_SCHEMES)
    return named or (path is not None and (method.weights is not None or targets.is_bare(path)))


def pretrained_checkpoint(
    method: MethodSpec, suite: Path, architecture: Component, dataset: Dataset[Any], seed: int
) -> Path:
    """The checkpoint that a pretrained start stands for, built if it is not there yet.

    Raises:
        CheckpointError: the weights cannot be had, cannot be read safely, or do not fit the architecture.
        UsageError: an unknown name.
    """
    assert method.start is not None
    return targets.resolve_start(
        method.start, method.weights or WeightsSpec(), architecture, dataset, seed=seed, folder=suite.parent
    )
