"""Groups of shifts by name, and the components that a suite's list of shifts stands for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from robusteval.schema.errors import UsageError
from robusteval.schema.specs import ShiftSpec
from robusteval.schema.types import Component
from robusteval.shifts import SHIFTS
from robusteval.shifts.base import resolve_shift
from robusteval.shifts.tables import COMMON, VALIDATION

SEVERITIES = (1, 2, 3, 4, 5)

GROUPS = {"common": COMMON, "extra": VALIDATION}
"""The corruptions that ImageNet-C scores, and those it keeps for validation (Hendrycks and Dietterich, ICLR 2019)."""


PRESETS = ((48, "cifar10-c"), (100, "tiny-imagenet-c"), (math.inf, "imagenet-c"))
"""Largest image side in pixels that takes the constants of each published set, where a suite does not say."""


def expand_shifts(specs: Sequence[ShiftSpec], side: int) -> tuple[Component, ...]:
    """One component for each shift and severity, with every parameter present; groups are written out.

    Args:
        specs: what a suite lists.
        side: smaller side of the images in pixels; chooses the preset of corruptions that name none.

    Raises:
        UnknownNameError: a shift is not registered.
        UsageError: a parameter is wrong, or a shift would be measured twice.
    """
    found: list[Component] = []
    for spec in specs:
        for name in GROUPS.get(spec.name, (spec.name,)):
            for component in _severities(name, spec, side):
                if component in found:
                    raise UsageError(f"shift {name!r} is listed twice with the same parameters; keep one")
                found.append(component)
    return tuple(found)


def _severities(name: str, spec: ShiftSpec, side: int) -> Iterator[Component]:
    fields = SHIFTS.load(name).Params.model_fields
    graded = "severity" in fields
    params = dict(spec.params)
    if "preset" in fields:
        params.setdefault("preset", next(preset for largest, preset in PRESETS if side <= largest))
    if spec.severities is not None and not graded:
        raise UsageError(f"shift {name!r} has no severities; leave them out")
    if not graded or "severity" in spec.params:
        if spec.severities is not None:
            raise UsageError(f"shift {name!r} has both 'severities' and a 'severity'; keep one")
        yield resolve_shift(Component(name=name, params=params))
        return
    for severity in spec.severities or SEVERITIES:
        yield resolve_shift(Component(name=name, params={**params, "severity": severity}))
