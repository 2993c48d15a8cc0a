"""The name of a number from AutoAttack: `aa-standard@linf-8/255@n1000@seed0@engine1`.

Two numbers with the same name were found in the same way. Only the published settings, searched in float32, are called
`standard`, `plus` or `rand`; everything else lists what was run, such as `aa-custom(apgd-ce,square;steps=20)@...`. The
modes that leave something out are called by their own names, `aa-two-stage-1/10` and `aa-gate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from robusteval.attacks.base import build_attack
from robusteval.attacks.cascade import TARGETS, Cascade, CascadeParams
from robusteval.attacks.ensemble import AutoAttack, AutoAttackParams
from robusteval.schema.threats import Threat
from robusteval.schema.types import Component

ENGINE = "engine1"
"""Version of the engine and its attacks; raised by hand when verdicts change."""
REFERENCE = "pyautoattack-0.2.0"
"""Version of the authors' code that `autoattack-reference` was checked with."""


def spec_id(
    attacks: Sequence[Component],
    threat: Threat,
    *,
    examples: int,
    seed: int,
    classes: int,
    budget: int | None = None,
) -> str | None:
    """Name of a robust accuracy, or None if no AutoAttack is among the attacks.

    Several attacks are joined by `+`: the number is their worst case.

    Args:
        attacks: what was run, in order.
        threat: threat model.
        examples: number of examples, misclassified ones included.
        seed: evaluation seed.
        classes: number of classes; with fewer than ten there are fewer targets than published, and the name says so.
        budget: passes that one example might cost over all attacks, if they were limited.
    """
    names, engines = [], []
    for component in attacks:
        attack = build_attack(component, threat)
        if isinstance(attack, Cascade):
            names.append(_ensemble_name(attack.params, classes, budget))
            engines.append(ENGINE if isinstance(attack, AutoAttack) else REFERENCE)
        else:
            names.append(component.name)
    if not engines:
        return None
    return f"{'+'.join(names)}@{threat}@n{examples}@seed{seed}@{'+'.join(dict.fromkeys(engines))}"


def _ensemble_name(params: CascadeParams, classes: int, budget: int | None) -> str:
    precision = getattr(params, "precision", "exact")
    changed = {name: getattr(params, name) for name in ("steps", "queries", "restarts")}
    deviations = [f"{name}={value}" for name, value in changed.items() if value is not None]
    if precision != "exact":
        deviations.append(f"precision={precision}")
    if classes - 1 < TARGETS and {"apgd-t", "fab-t"} & set(params.order):
        deviations.append(f"targets={classes - 1}")
    if budget is not None:
        deviations.append(f"budget={budget}")
    mode = _mode_name(params)
    if mode is not None:
        members = {"standard": [], "custom": [",".join(params.order)]}.get(params.version, [params.version])
        return mode + _listed([*members, *deviations])
    if params.version != "custom" and precision == "exact" and budget is None:
        return f"aa-{params.version}" + _listed(deviations)
    return f"aa-custom{_listed([','.join(params.order), *deviations])}"


def _mode_name(params: CascadeParams) -> str | None:
    """Name of a mode that leaves something out, or None."""
    if not isinstance(params, AutoAttackParams) or params.mode == "full":
        return None
    return "aa-gate" if params.mode == "gate" else f"aa-two-stage-{Fraction(str(params.share))}"


def _listed(parts: Sequence[str]) -> str:
    return f"({';'.join(parts)})" if parts else ""
