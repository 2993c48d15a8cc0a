"""Attacks: procedures inside a threat model that look for an input the model gets wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robusteval.schema.registry import Registry

if TYPE_CHECKING:
    from robusteval.attacks.base import Attack

ATTACKS: Registry[type[Attack[Any]]] = Registry(
    "attack",
    {
        "fgsm": (
            "robusteval.attacks.gradient:Fgsm",
            "one signed gradient step (Goodfellow et al., ICLR 2015)",
        ),
        "pgd": (
            "robusteval.attacks.gradient:Pgd",
            "projected gradient ascent with restarts (Madry et al., ICLR 2018)",
        ),
        "autoattack-reference": (
            "robusteval.attacks.reference:AutoAttackReference",
            "pyautoattack standard, plus, rand or custom (Croce and Hein, ICML 2020), re-verified",
        ),
    },
    families={
        "torchattacks/": (
            "robusteval.attacks.torchattacks_bridge:torchattack",
            "every torchattacks class, re-verified",
        ),
    },
)
