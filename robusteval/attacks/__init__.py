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
        "apgd-ce": (
            "robusteval.attacks.apgd:ApgdCe",
            "Auto-PGD on the cross-entropy (Croce and Hein, ICML 2020)",
        ),
        "apgd-dlr": (
            "robusteval.attacks.apgd:ApgdDlr",
            "Auto-PGD on the difference of logits ratio (Croce and Hein, ICML 2020)",
        ),
        "apgd-t": (
            "robusteval.attacks.apgd:ApgdT",
            "Auto-PGD on the targeted difference of logits ratio, target after target (Croce and Hein, ICML 2020)",
        ),
        "fab": (
            "robusteval.attacks.fab:Fab",
            "minimal perturbations, stepping to the nearest of all boundaries (Croce and Hein, ICML 2020)",
        ),
        "fab-t": (
            "robusteval.attacks.fab:TargetedFab",
            "minimal perturbations, one run a target class (Croce and Hein, ICML 2020)",
        ),
        "square": (
            "robusteval.attacks.square:Square",
            "random search on scores, no gradient (Andriushchenko et al., ECCV 2020)",
        ),
        "spatial": (
            "robusteval.attacks.spatial:SpatialAttack",
            "worst rotation and translation of a grid (Engstrom et al., ICML 2019), in spatial threats",
        ),
        "recolour": (
            "robusteval.attacks.recolour:RecolourAttack",
            "worst map of colours to colours (after Laidlaw and Feizi, NeurIPS 2019), in recolour threats",
        ),
        "autoattack": (
            "robusteval.attacks.ensemble:AutoAttack",
            "AutoAttack standard, plus, rand or custom (Croce and Hein, ICML 2020) on full batches",
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
