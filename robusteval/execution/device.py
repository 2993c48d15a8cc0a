"""Which device a run uses."""

from __future__ import annotations

import torch

from robusteval.schema.errors import UsageError


def resolve_device(name: str) -> str:
    """Turn `auto` into what is there, and check that a named device exists and computes.

    Raises:
        UsageError: the device does not exist on this machine, or cannot be used.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device {name!r}; valid: auto, cpu, cuda, cuda:0") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UsageError(f"device {name!r} is not on this machine; {torch.cuda.device_count()} CUDA devices found")
    if device.type == "cpu" and device.index not in (None, 0):
        raise UsageError(f"device {name!r} is not on this machine; the processor is called cpu")
    _check_that_it_computes(device)
    return name


def rank_devices(name: str, count: int) -> list[str]:
    """The device of each of `count` processes: the processor for all, or one accelerator each, from the named one on.

    Raises:
        UsageError: there are not so many accelerators.
    """
    device = torch.device(name)
    if device.type != "cuda":
        return [name] * count
    first = device.index or 0
    if first + count > torch.cuda.device_count():
        raise UsageError(
            f"{count} processes need {count} accelerators from {device} on, and this machine shows "
            f"{torch.cuda.device_count()}; lower 'gpus' in the suite's resources"
        )
    return [f"cuda:{index}" for index in range(first, first + count)]


def _check_that_it_computes(device: torch.device) -> None:
    # Backends that are not built in or hold no data refuse in errors of their own making.
    try:
        two = float((torch.ones(1, device=device) + 1).item())
    except Exception as error:  # noqa: BLE001 - whatever it is, it becomes the error of this device
        reason = str(error).partition("\n")[0].rstrip(".")[:100]
        raise UsageError(f"device {str(device)!r} cannot be used ({reason}); valid: auto, cpu, cuda, cuda:0") from None
    if two != 2.0:
        raise UsageError(f"device {str(device)!r} adds wrong: 1 + 1 gave {two}; valid: auto, cpu, cuda, cuda:0")
