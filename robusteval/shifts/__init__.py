"""Corruptions and procedural domain shifts, batched on the device."""
