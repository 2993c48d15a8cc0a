"""robusteval: the four accuracies of an image classifier, on the same predictions, with intervals.

The functions below are imported on first use, so `import robusteval` costs nothing and never loads torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "attack": "robusteval.api.images",
    "compare": "robusteval.api.comparing",
    "corrupt": "robusteval.api.images",
    "evaluate": "robusteval.api.evaluation",
    "fast_gate": "robusteval.api.fast_gating",
    "gate": "robusteval.api.gating",
    "load_results": "robusteval.api.running",
    "run": "robusteval.api.running",
}

__all__ = ["attack", "compare", "corrupt", "evaluate", "fast_gate", "gate", "load_results", "run"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'robusteval' has no attribute {name!r}; it has {', '.join(_HOMES)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
