"""Symptoms of gradient masking that attacks meet on their way, counted per example and turned into flags."""

from __future__ import annotations

from collections.abc import Mapping

from robusteval.schema.records import Flag

ZERO_GRADIENT = "zero-gradient"
"""The input gradient of an example that survived was exactly zero at some step."""
NAN_GRADIENT = "nan-gradient"
"""The input gradient of an example was NaN or infinite at some step."""
NAN_LOGITS = "nan-logits"
"""The model answered with NaN; such an example counts as broken."""

ZERO_GRADIENT_SHARE = 0.05
"""Share of the attacked examples from which zero gradients are worth a flag."""


def flags_from_symptoms(attack: str, symptoms: Mapping[str, int], attacked: int) -> tuple[Flag, ...]:
    """Flags for what was counted.

    Args:
        attack: label of the attack that met the symptoms.
        symptoms: symptom to number of examples.
        attacked: number of examples that were attacked, or predicted for `clean`.
    """
    flags: list[Flag] = []
    zero = symptoms.get(ZERO_GRADIENT, 0)
    if zero > ZERO_GRADIENT_SHARE * attacked:
        flags.append(
            Flag(
                code=ZERO_GRADIENT,
                severity="warning",
                evidence=f"{attack}: exactly zero input gradient on {zero} of {attacked} attacked examples, not broken",
                next_step="look for rounding, hard thresholds or a saturated loss; attack with loss=margin or square",
            )
        )
    undefined = symptoms.get(NAN_GRADIENT, 0)
    if undefined:
        flags.append(
            Flag(
                code=NAN_GRADIENT,
                severity="error",
                evidence=f"{attack}: NaN or infinite input gradient on {undefined} of {attacked} attacked examples",
                next_step="gradient attacks cannot be trusted here; find the undefined operation or use square",
            )
        )
    silent = symptoms.get(NAN_LOGITS, 0)
    if silent:
        flags.append(
            Flag(
                code=NAN_LOGITS,
                severity="error",
                evidence=f"{attack}: NaN logits on {silent} of {attacked} examples, counted as errors",
                next_step="make the model answer with finite logits on every image in [0, 1]",
            )
        )
    return tuple(flags)
