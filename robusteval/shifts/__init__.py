"""Corruptions and procedural domain shifts, batched on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robusteval.schema.registry import Registry

if TYPE_CHECKING:
    from robusteval.shifts.base import Shift

SHIFTS: Registry[type[Shift[Any]]] = Registry(
    "shift",
    {
        "gaussian_noise": ("robusteval.shifts.noise:GaussianNoise", "normal noise of one size everywhere"),
        "impulse_noise": ("robusteval.shifts.noise:ImpulseNoise", "some values set to black or white"),
        "contrast": ("robusteval.shifts.digital:Contrast", "less contrast around the mean of each channel"),
    },
)
