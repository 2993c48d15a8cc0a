"""Which device a run uses."""

from __future__ import annotations

import torch

from robusteval.schema.errors import UsageError


def resolve_device(name: str) -> str:
    """Turn `auto` into what is there, and check that a named device exists.

    Raises:
        UsageError: the device does not exist on this machine.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device {name!r}; valid: auto, cpu, cuda, cuda:0") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UsageError(f"device {name!r} is not on this machine; {torch.cuda.device_count()} CUDA devices found")
    return name
