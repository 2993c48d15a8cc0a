"""Golden: every field of every frozen protocol, as the sources describe it. A change here is a new protocol name."""

from __future__ import annotations

from typing import Any

import pytest

from robusteval.data.protocols import load_protocol, protocol_names
from robusteval.methods.resolve import resolve_method
from robusteval.schema.errors import UnknownNameError

DOMAINBED_AUGMENT = [
    {"name": "random-resized-crop", "params": {"scale": [0.7, 1.0]}},
    "flip",
    {"name": "colour-jitter", "params": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.3}},
    {"name": "grayscale", "params": {"p": 0.1}},
]
DASSL_AUGMENT = ["flip", {"name": "enlarge-crop", "params": {"factor": 1.125, "p": 0.5}}]
DOMAINBED_METHOD = {
    "iterations": 5001,
    "evaluate_every": 300,
    "optimizer": "adam",
    "lr": 5e-5,
    "weight_decay": 0.0,
    "schedule": "constant",
    "batch_norm": "frozen",
    "augment": DOMAINBED_AUGMENT,
    "select": "best-validation",
}
DASSL_METHOD = {
    "epochs": 50,
    "batch_size": 64,
    "drop_last": True,
    "optimizer": "sgd",
    "lr": 1e-3,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "schedule": "cosine",
    "batch_norm": "train",
    "augment": DASSL_AUGMENT,
    "select": "last",
}
DOMAINBED: dict[str, Any] = {
    "training_domains": "all-but-one",
    "split": {"by": "domainbed", "holdout": 0.2, "seeded_by_trial": True},
    "target": {"share": "80%", "average": "macro"},
    "selection": "training-domain",
    "image_size": 224,
    "batch_per_domain": 32,
    "method": DOMAINBED_METHOD,
    "per_dataset": {"domainnet": {"evaluate_every": 1000}},
    "validation_augmented": True,
    "search": {
        "trials": 3,
        "draws": 20,
        "ranges": {
            "lr": "10^U(-5, -3.5)",
            "batch_per_domain": "int 2^U(3, 5.5); DomainNet int 2^U(3, 5)",
            "weight_decay": "10^U(-6, -2)",
            "dropout": "one of 0, 0.1, 0.5",
        },
    },
    "seeds": 3,
}
DASSL: dict[str, Any] = {
    "split": {"by": "official", "holdout": None, "seeded_by_trial": False},
    "selection": "last",
    "image_size": 224,
    "batch_per_domain": None,
    "method": DASSL_METHOD,
    "per_dataset": {},
    "validation_augmented": False,
    "search": None,
}
GOLDEN: dict[str, dict[str, Any]] = {
    "domainbed-2020": {**DOMAINBED, "backbone": "torchvision ResNet-50, ImageNet"},
    "domainbed-head": {
        **DOMAINBED,
        "backbone": "timm resnet50.ram_in1k",
        "method": {**DOMAINBED_METHOD, "batch_norm": "train"},
    },
    "dassl-lodo": {
        **DASSL,
        "training_domains": "all-but-one",
        "target": {"share": "full", "average": "macro"},
        "backbone": "torchvision ResNet-18, ImageNet",
        "seeds": 5,
    },
    "advstyle-sdg": {
        **DASSL,
        "training_domains": "one",
        "target": {"share": "full", "average": "micro"},
        "backbone": "torchvision ResNet-50, ImageNet, with style layers c, 0, 1, 2, 3, 4",
        "seeds": 1,
    },
    "udim-sdg": {
        "training_domains": "one",
        "split": {"by": "domainbed", "holdout": 0.2, "seeded_by_trial": False},
        "target": {"share": "80%", "average": "macro"},
        "selection": "training-domain",
        "backbone": "torchvision ResNet-18, ImageNet, dropout 0.5",
        "image_size": 224,
        "batch_per_domain": None,
        "method": {
            **DOMAINBED_METHOD,
            "evaluate_every": 100,
            "batch_size": 48,
            "lr": 3e-5,
            "weight_decay": 1e-4,
        },
        "per_dataset": {},
        "validation_augmented": False,
        "search": None,
        "seeds": 3,
    },
    "rift-cifar": {
        "training_domains": "given",
        "split": {"by": "hash", "holdout": 0.1, "seeded_by_trial": False},
        "target": {"share": "full", "average": "macro"},
        "selection": "training-domain",
        "backbone": "ResNet-18 for CIFAR, PGD-10 adversarially trained at 8/255",
        "image_size": 32,
        "batch_per_domain": None,
        "method": {
            "epochs": 10,
            "batch_size": 128,
            "optimizer": "sgd",
            "lr": 1e-3,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "schedule": "piecewise",
            "batch_norm": "train",
            "augment": [{"name": "pad-crop", "params": {"pad": 4, "mode": "reflect"}}, "flip"],
            "select": "best-validation",
        },
        "per_dataset": {},
        "validation_augmented": False,
        "search": None,
        "seeds": 3,
    },
    "lpft": {
        "training_domains": "given",
        "split": {"by": "hash", "holdout": 0.2, "seeded_by_trial": False},
        "target": {"share": "full", "average": "macro"},
        "selection": "training-domain",
        "backbone": "ResNet-50, MoCo-v2",
        "image_size": 224,
        "batch_per_domain": None,
        "method": {
            "epochs": 20,
            "batch_size": 64,
            "optimizer": "sgd",
            "momentum": 0.9,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "batch_norm": "frozen",
            "augment": [{"name": "random-resized-crop", "params": {"scale": [0.08, 1.0]}}, "flip"],
            "select": "best-validation",
        },
        "per_dataset": {},
        "validation_augmented": False,
        "search": {"trials": 3, "draws": 6, "ranges": {"lr": "six values of each dataset between 3e-7 and 1e-2"}},
        "seeds": 3,
    },
}
WORDS = {"name", "summary", "references", "notes"}


def test_the_table_covers_every_protocol() -> None:
    assert set(protocol_names()) == set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_every_field_is_the_frozen_one(name: str) -> None:
    assert load_protocol(name).model_dump(mode="json", exclude=WORDS) == GOLDEN[name]
    assert load_protocol(name).name == name


@pytest.mark.parametrize("name", GOLDEN)
def test_the_methods_of_a_protocol_are_ones_that_can_run(name: str) -> None:
    method = load_protocol(name).method
    resolved = resolve_method("erm", method)
    assert resolved.params["lr"] == method.get("lr", resolved.params["lr"])


@pytest.mark.parametrize(
    ("name", "domains", "rule", "runs"),
    [
        ("domainbed-2020", 4, "training-domain", 240),
        ("domainbed-2020", 4, "oracle", 240),
        ("domainbed-2020", 4, "leave-one-domain-out", 600),
        ("domainbed-2020", 6, "training-domain", 360),
        ("domainbed-2020", 6, "leave-one-domain-out", 1260),
        ("udim-sdg", 4, "training-domain", 12),
        ("rift-cifar", 1, "training-domain", 3),
    ],
)
def test_runs_that_a_selection_rule_needs(name: str, domains: int, rule: Any, runs: int) -> None:
    assert load_protocol(name).runs(domains, rule) == runs


def test_a_single_source_cannot_be_left_out() -> None:
    with pytest.raises(ValueError, match="no training domain to leave out"):
        load_protocol("udim-sdg").runs(4, "leave-one-domain-out")


def test_a_wrong_name_lists_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="domainbed-2020"):
        load_protocol("domainbed-202")


@pytest.mark.parametrize("name", ["../digits", "domainbed-2020.yaml", "/etc/passwd"])
def test_a_name_is_never_a_path(name: str) -> None:
    with pytest.raises(UnknownNameError):
        load_protocol(name)
