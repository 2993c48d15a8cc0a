"""Training methods, one file each, and the one trainer that runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robusteval.schema.registry import Registry

if TYPE_CHECKING:
    from robusteval.methods.base import Method

METHODS: Registry[type[Method[Any]]] = Registry(
    "method",
    {
        "erm": ("robusteval.methods.erm:Erm", "empirical risk minimisation: cross-entropy on clean images"),
        "pgd-at": (
            "robusteval.methods.pgd_at:PgdTraining",
            "PGD adversarial training (Madry et al., ICLR 2018)",
        ),
        "aft": (
            "robusteval.methods.aft:AdversarialFineTuning",
            "adversarial fine-tuning (Jeddi et al., 2020)",
        ),
        "rift": ("robusteval.methods.rift:Rift", "robust critical fine-tuning (Zhu et al., ICCV 2023)"),
        "advstyle": (
            "robusteval.methods.advstyle:AdvStyle",
            "adversarial style augmentation (Zhang et al., 2023)",
        ),
        "udim": (
            "robusteval.methods.udim:Udim",
            "unknown domain inconsistency minimisation (Shin et al., ICLR 2024)",
        ),
        "sam": ("robusteval.methods.sam:Sam", "sharpness-aware minimisation (Foret et al., ICLR 2021)"),
        "given": ("robusteval.methods.given:Given", "the start model as it is: measured and not trained"),
        "lp-ft": (
            "robusteval.methods.lp_ft:LinearProbeFineTune",
            "linear probing, then fine-tuning (Kumar et al., ICLR 2022)",
        ),
    },
)
